"""Patterns cut short: forms that hit wherever the whole pattern does, and that are cheaper to look for in most texts.

A match of a pattern holds a match of each of its beginnings, also without the sign that has to stand before it. What a
short form lets through besides is for the whole pattern to turn down.
"""

import re
from collections.abc import Iterator
from math import inf
from typing import NamedTuple, TypeAlias

_TOKEN = re.compile(
    r"(?P<sign>\(\?[a-zA-Z\-]+\)|\\[pPx]\{[^}]*\}|\\[pP]\w|\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])"
    r"|(?P<open>\((?:\?(?:[a-zA-Z\-]*:|P?<\w+>))?)|(?P<close>\))|(?P<bar>\|)"
    r"|(?P<count>(?:[*+?]|\{\d+(?:,\d*)?\})\??)"
    r"|(?P<other>.)",
    re.DOTALL,
)
"""A setting, an escape or a class; signs of groups and counts; any other sign, which stands for itself."""
_CONTEXT = re.compile(r"\(\?m?:\^\|\[\^(?:\\.|[^\]\\])*\]\)")
"""The start of a line, or a sign before the match that is none of some."""
_FEW = 2
"""So many rounds of a repeated group are left."""


class _Group(NamedTuple):
    opening: str
    choices: "_Choices"


class _Item(NamedTuple):
    """A group, or one sign, class or escape, and how often it comes."""

    what: _Group | str
    rounds: str = ""


_Choices: TypeAlias = list[list[_Item]]


def shortened(pattern: str) -> str:
    r"""Return a pattern that hits wherever `pattern`, which has to be valid, does; mostly that is `pattern` itself.

    It is cut after two rounds of a group that has to come three times or more, always as often; capitals before such a
    cut stand for any, so that many beginnings become one. It is also cut before the second gap, which is a group that
    may come or not and often, if there is a group between both.

    >>> shortened(r"\b(?:AT|BE|DE)\d{2}(?: ?\d{4}){4}\b")
    '\\b(?:[A-Z][A-Z])\\d{2}(?: ?\\d{4}){2}'
    >>> shortened(r"(?:^|[^\w:])((?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4})\b")
    '((?:[0-9a-f]{1,4}:){2})'
    >>> shortened(r"\bsend(?: \w+){0,5} (?:keys|secrets)(?: \w+){0,5} (?:to|by) mail"), shortened(r"\b\w{3}-\d{4}\b")
    ('\\bsend(?: \\w+){0,5} (?:keys|secrets)', '\\b\\w{3}-\\d{4}\\b')
    """
    short, is_cut = _short(_read(_TOKEN.finditer(pattern)))
    return _CONTEXT.sub("", _text(short), count=1) if is_cut and _CONTEXT.match(pattern) else _text(short)


def _read(tokens: Iterator[re.Match[str]]) -> _Choices:
    choices: _Choices = [[]]
    for token in tokens:
        kind, text = token.lastgroup, token.group()
        if kind == "close":
            break
        if kind == "bar":
            choices.append([])
        elif kind == "open":
            choices[-1].append(_Item(_Group(text, _read(tokens))))
        elif kind == "count":
            choices[-1][-1] = choices[-1][-1]._replace(rounds=text)
        else:
            choices[-1].append(_Item(text))
    return choices


def _short(choices: _Choices) -> tuple[_Choices, bool]:
    """Return the choices cut short, and whether one of them was cut: nothing may follow then."""
    short = [_beginning(items) for items in choices]
    return [items for items, _ in short], any(is_cut for _, is_cut in short)


def _beginning(items: list[_Item]) -> tuple[list[_Item], bool]:
    before = list[_Item]()
    has_gap = has_more = False
    for item in items:
        if isinstance(item.what, _Group):
            fewest, most = _bounds(item.rounds)
            if fewest == most > _FEW:
                return [*map(_widened, before), item._replace(rounds=f"{{{_FEW}}}")], True
            is_gap = fewest == 0 and most > _FEW
            if is_gap and has_more:
                return before, True
            has_gap, has_more = has_gap or is_gap, has_more or (has_gap and fewest > 0)
            if not item.rounds:
                inner, is_cut = _short(item.what.choices)
                if is_cut:
                    return [*before, _Item(item.what._replace(choices=inner))], True
        before.append(item)
    return before, False


def _bounds(rounds: str) -> tuple[float, float]:
    """Return the fewest and the most rounds that a count allows."""
    if rounds.startswith("{"):
        fewest, comma, most = rounds.strip("{}?").partition(",")
        return int(fewest), float(most or (inf if comma else fewest))
    return {"": (1, 1), "?": (0, 1), "*": (0, inf), "+": (1, inf)}[rounds[:1]]


def _widened(item: _Item) -> _Item:
    if isinstance(item.what, _Group):
        choices = [[_widened(one) for one in items] for items in item.what.choices]
        return item._replace(what=item.what._replace(choices=choices))
    return item._replace(what="[A-Z]") if len(item.what) == 1 and "A" <= item.what <= "Z" else item


def _text(choices: _Choices) -> str:
    return "|".join(dict.fromkeys("".join(map(_item_text, items)) for items in choices))


def _item_text(item: _Item) -> str:
    what = item.what
    return (what if isinstance(what, str) else f"{what.opening}{_text(what.choices)})") + item.rounds
