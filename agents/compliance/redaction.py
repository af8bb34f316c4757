"""Replacing spans by typed placeholders that are the same for the same text throughout a conversation."""

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from msgspec import Struct
from msgspec.structs import replace

from ctrainer.agents.compliance.conversation import Tools, Turn
from ctrainer.agents.compliance.detectors.findings import Found
from ctrainer.agents.compliance.detectors.normalization import normalized
from ctrainer.agents.compliance.detectors.reading import unescaped
from ctrainer.agents.compliance.segments import (
    CALL_ID,
    CONTENT,
    NAME,
    TOOLS,
    arguments_field,
    id_field,
    name_field,
    segments,
    tools_text,
)

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[-+.\w]+', re.DOTALL)
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z_]*_[0-9]+>")
_BETWEEN = re.compile(r"[ ()\-]")
_NUMBER = re.compile(r"\+?(?:[A-Z]*[0-9]){8,}[A-Z]*")
Place = tuple[int, str]


class Redacted(Struct, frozen=True):
    """A conversation without the spans, and how many were replaced by rule and message, as `Redaction` tells it."""

    messages: Sequence[Turn]
    tools: Tools
    redactions: Sequence[dict[str, Any]]


class _Placeholders:
    """Numbers the values of each label in the order in which they come: `<EMAIL_1>`, `<EMAIL_2>`.

    A value keeps the placeholder that it had first, also where another rule finds it.
    Placeholders that are `taken`, by an earlier redaction or by whoever logged the sample, stand for something else.
    """

    def __init__(self, taken: frozenset[str]) -> None:
        self._taken = taken
        self._names: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()

    def of(self, label: str, text: str) -> str:
        value = _value(text)
        if value not in self._names:
            self._names[value] = self._next(label)
        return self._names[value]

    def _next(self, label: str) -> str:
        name = ""
        while not name or name in self._taken:
            self._numbers[label] += 1
            name = f"<{label}_{self._numbers[label]}>"
        return name


def _value(text: str) -> str:
    """Return what a text says, disguised or not: a number is the same one however it is grouped, any text in any case.

    >>> _value("+1 (415) 555-2671") == _value("+14155552671"), _value("Ann@x.org") == _value("ann@x.org")
    (True, True)
    """
    plain, _ = normalized(_without_escapes(text))
    number = _BETWEEN.sub("", plain).upper()
    return number if _NUMBER.fullmatch(number) else " ".join(plain.split()).casefold()


def _without_escapes(text: str) -> str:
    r"""Return a text with its escapes read until none is left: in JSON within JSON each layer doubles them.

    >>> _without_escapes(r"a\\\\/b"), _without_escapes(r"a\/b")
    ('a/b', 'a/b')
    """
    read = unescaped(text)[0] if "\\" in text else text
    return read if read == text else _without_escapes(read)


def redact(messages: Sequence[Turn], tools: Tools, findings: Sequence[Found]) -> Redacted:
    """Replace the spans of `findings` by the labels of their rules.

    Overlapping spans become one, named after the widest of them. Tool arguments and definitions stay valid JSON, and so
    does what a tool returned or anybody said in JSON: a number turns into a string, and what a span covers of JSON's
    own signs is left.
    """
    by_place: dict[Place, list[Found]] = {}
    for finding in findings:
        by_place.setdefault((finding.message_index, finding.field), []).append(finding)
    merged = {place: _merge(found) for place, found in by_place.items()}
    placeholders = _Placeholders(_placeholders(messages, tools))
    turns = [_redact_turn(index, turn, merged, placeholders) for index, turn in enumerate(messages)]
    return Redacted(turns, _redact_tools(tools, merged.get((0, TOOLS), ()), placeholders), list(_count(merged)))


def _merge(findings: Iterable[Found]) -> tuple[Found, ...]:
    """Return spans that do not touch: overlapping ones united under the rule of the widest."""
    merged: list[Found] = []
    for finding in sorted(findings, key=lambda found: (found.start, -found.end, found.source.rule.id)):
        if not merged or finding.start >= merged[-1].end:
            merged.append(finding)
        elif finding.end > merged[-1].end:
            widest = max(merged[-1], finding, key=lambda found: found.end - found.start)
            merged[-1] = replace(widest, start=merged[-1].start, end=finding.end)
    return tuple(merged)


def _count(merged: Mapping[Place, Sequence[Found]]) -> Iterator[dict[str, Any]]:
    counts = Counter((found.message_index, found.source.rule.id) for spans in merged.values() for found in spans)
    for (index, rule), count in sorted(counts.items()):
        yield {"rule": rule, "message_index": index, "count": count}


def _placeholders(messages: Sequence[Turn], tools: Tools) -> frozenset[str]:
    texts = (segment.text for segment in segments(messages, tools))
    return frozenset(name for text in texts if "<" in text for name in _PLACEHOLDER.findall(text))


def _redact_turn(index: int, turn: Turn, merged: Mapping[Place, Sequence[Found]], placeholders: _Placeholders) -> Turn:
    if not any(place == index and field != TOOLS for place, field in merged):
        return turn

    def replaced(field: str, text: str, write: Callable[..., str] = _replace) -> str:
        spans = merged.get((index, field), ())
        return write(text, spans, placeholders) if spans else text

    return {
        "role": turn["role"],
        "content": replaced(CONTENT, turn["content"], _replace_content),
        "tool_calls": [
            {
                "id": replaced(id_field(number), call["id"]),
                "type": call["type"],
                "function": {
                    "name": replaced(name_field(number), call["function"]["name"]),
                    "arguments": replaced(arguments_field(number), call["function"]["arguments"], _replace_json),
                },
            }
            for number, call in enumerate(turn["tool_calls"])
        ],
        "tool_call_id": turn["tool_call_id"] and replaced(CALL_ID, turn["tool_call_id"]),
        "name": turn["name"] and replaced(NAME, turn["name"]),
    }


def _redact_tools(tools: Tools, spans: Sequence[Found], placeholders: _Placeholders) -> Tools:
    if not spans:
        return tools
    redacted: list[dict[str, Any]] = orjson.loads(_replace_json(tools_text(tools), spans, placeholders))
    return redacted


def _replace(text: str, spans: Sequence[Found], placeholders: _Placeholders) -> str:
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces += [text[position : span.start], placeholders.of(span.source.rule.label, text[span.start : span.end])]
        position = span.end
    return "".join([*pieces, text[position:]])


def _replace_content(text: str, spans: Sequence[Found], placeholders: _Placeholders) -> str:
    return (_replace_json if _is_json(text) else _replace)(text, spans, placeholders)


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _replace_json(text: str, spans: Sequence[Found], placeholders: _Placeholders) -> str:
    """Replace spans of JSON text token by token: inside a string literal in place, any other value as a whole."""
    starts, ends = [span.start for span in spans], [span.end for span in spans]

    def replaced(token: re.Match[str]) -> str:
        touched = spans[bisect_right(ends, token.start()) : bisect_left(starts, token.end())]
        return _replace_token(token, touched, placeholders) if touched else token.group()

    return _TOKEN.sub(replaced, text)


def _replace_token(token: re.Match[str], spans: Sequence[Found], placeholders: _Placeholders) -> str:
    whole, is_string = token.group(), token.group().startswith('"')
    first, last = (token.start() + 1, token.end() - 1) if is_string else token.span()
    inside = [
        replace(span, start=max(span.start, first) - first, end=min(span.end, last) - first)
        for span in spans
        if span.start < last and span.end > first
    ]
    if not inside:
        return whole
    if not is_string:
        return f'"{placeholders.of(inside[0].source.rule.label, whole)}"'
    return f'"{_replace(whole[1:-1], inside, placeholders)}"'
