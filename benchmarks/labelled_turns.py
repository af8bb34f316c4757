"""Turns in which personal data and secrets are marked: read from YAML, and their keys drawn.

A mark is `⟦kind|value⟧`. In a turn `{A36}` stands for 36 signs drawn from the alphabet of that letter, the same at
every reading, so that a file of turns holds no key.
"""

import random
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

_DIGITS, _SMALL, _CAPITALS = string.digits, string.ascii_lowercase, string.ascii_uppercase
_ALPHABETS = {
    "A": _SMALL + _CAPITALS + _DIGITS,
    "B": _SMALL + _CAPITALS + _DIGITS + "+/",
    "P": _SMALL + _CAPITALS + _DIGITS + "!-_.",
    "Q": "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L",
    "T": _CAPITALS + "234567",
    "U": _CAPITALS + _DIGITS,
    "W": _SMALL + _CAPITALS + _DIGITS + "-_",
    "a": _SMALL + _DIGITS,
    "d": _DIGITS,
    "h": "0123456789abcdef",
}
"""P is for passwords, Q and T are those of Bech32 and of base32."""
_DRAWN = re.compile(r"\{([A-Za-z])(\d{1,3})\}")
_MARKED = re.compile(r"⟦([a-z0-9\-]+)\|([^⟧]*)⟧")
_PASSWORD = re.compile(r"[A-Za-z0-9](?:.*\d.*[!\-_.]|.*[!\-_.].*\d).*[A-Za-z0-9]")
_LEAST_WITH_DIGIT = 20
"""Tokens of letters and digits that are this long have a digit all but always."""


class Span(NamedTuple):
    """A marked place: characters `[start, end)`."""

    kind: str
    start: int
    end: int


class LabelledTurn(NamedTuple):
    """A turn and what is in it."""

    text: str
    spans: tuple[Span, ...]


def labelled_turn(written: str) -> LabelledTurn:
    """Return a turn without its marks.

    >>> labelled_turn("mail ⟦email|ann@a.example⟧ now")
    LabelledTurn(text='mail ann@a.example now', spans=(Span(kind='email', start=5, end=18),))
    """
    text, spans, last = "", list[Span](), 0
    drawn = _drawn(written)
    for mark in _MARKED.finditer(drawn):
        text += drawn[last : mark.start()]
        spans.append(Span(mark[1], len(text), len(text) + len(mark[2])))
        text += mark[2]
        last = mark.end()
    return LabelledTurn(text + drawn[last:], tuple(spans))


def labelled_turns(path: Path) -> Iterator[LabelledTurn]:
    """Yield every turn of a file, whatever group it stands in."""
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))
    for kinds in groups.values():
        for turns in kinds.values():
            yield from map(labelled_turn, turns)


def _drawn(written: str) -> str:
    draw = random.Random(written)
    return _DRAWN.sub(lambda what: _signs(draw, what[1], int(what[2])), written)


def _signs(draw: random.Random, letter: str, length: int) -> str:
    while True:
        signs = "".join(draw.choices(_ALPHABETS[letter], k=length))
        if letter == "P" and not _PASSWORD.fullmatch(signs):
            continue
        if letter == "A" and length >= _LEAST_WITH_DIGIT and signs.isalpha():
            continue
        return signs
