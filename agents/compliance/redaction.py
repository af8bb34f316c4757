"""Replacing spans by typed placeholders that are the same for the same text throughout a conversation."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ctrainer.agents.compliance.segments import CONTENT, TOOLS, arguments_field, tools_text
from ctrainer.schemas.compliance import Finding
from ctrainer.schemas.samples import ChatMessage, Redaction, ToolCall

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[-+.\w]+', re.DOTALL)
Place = tuple[int, str]
Tools = tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Redacted:
    """A conversation without the spans, and what was replaced where."""

    messages: tuple[ChatMessage, ...]
    tools: Tools
    redactions: tuple[Redaction, ...]


class _Placeholders:
    """Numbers the texts of each label in the order in which they come: `<EMAIL_1>`, `<EMAIL_2>`."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], str] = {}
        self._numbers: Counter[str] = Counter()

    def of(self, label: str, text: str) -> str:
        key = (label, " ".join(text.split()).casefold())
        if key not in self._names:
            self._numbers[label] += 1
            self._names[key] = f"<{label}_{self._numbers[label]}>"
        return self._names[key]


def redact(
    messages: Sequence[ChatMessage], tools: Tools, findings: Sequence[Finding], labels: Mapping[str, str]
) -> Redacted:
    """Replace the spans of `findings`; `labels` maps a rule to the name of its placeholder.

    Overlapping spans become one, named after the widest of them. Tool arguments and definitions stay valid JSON: a
    number turns into a string, and what a span covers of JSON's own signs is left.
    """
    by_place: dict[Place, list[Finding]] = {}
    for finding in findings:
        by_place.setdefault((finding.message_index, finding.field), []).append(finding)
    merged = {place: _merge(found) for place, found in by_place.items()}
    placeholders = _Placeholders()
    return Redacted(
        messages=tuple(
            _redact_message(index, message, merged, labels, placeholders) for index, message in enumerate(messages)
        ),
        tools=_redact_tools(tools, merged.get((0, TOOLS), ()), labels, placeholders),
        redactions=tuple(_count(merged)),
    )


def _merge(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return spans that do not touch: overlapping ones united under the rule of the widest."""
    merged: list[Finding] = []
    for finding in sorted(findings, key=lambda found: (found.start, -found.end, found.rule)):
        if not merged or finding.start >= merged[-1].end:
            merged.append(finding)
        elif finding.end > merged[-1].end:
            widest = max(merged[-1], finding, key=lambda found: found.end - found.start)
            merged[-1] = widest.model_copy(update={"start": merged[-1].start, "end": finding.end})
    return tuple(merged)


def _count(merged: Mapping[Place, Sequence[Finding]]) -> Iterator[Redaction]:
    counts = Counter((found.message_index, found.rule) for spans in merged.values() for found in spans)
    for (index, rule), count in sorted(counts.items()):
        yield Redaction(rule=rule, message_index=index, count=count)


def _redact_message(
    index: int,
    message: ChatMessage,
    merged: Mapping[Place, Sequence[Finding]],
    labels: Mapping[str, str],
    placeholders: _Placeholders,
) -> ChatMessage:
    if not any(place == index and field != TOOLS for place, field in merged):
        return message
    content = _replace(message.content, merged.get((index, CONTENT), ()), labels, placeholders)
    calls = tuple(
        _redact_call(call, merged.get((index, arguments_field(number)), ()), labels, placeholders)
        for number, call in enumerate(message.tool_calls)
    )
    return message.model_copy(update={"content": content, "tool_calls": calls})


def _redact_call(
    call: ToolCall, spans: Sequence[Finding], labels: Mapping[str, str], placeholders: _Placeholders
) -> ToolCall:
    if not spans:
        return call
    arguments = _replace_json(call.function.arguments, spans, labels, placeholders)
    return call.model_copy(update={"function": call.function.model_copy(update={"arguments": arguments})})


def _redact_tools(
    tools: Tools, spans: Sequence[Finding], labels: Mapping[str, str], placeholders: _Placeholders
) -> Tools:
    if not spans:
        return tools
    return tuple(orjson.loads(_replace_json(tools_text(tools), spans, labels, placeholders)))


def _replace(text: str, spans: Sequence[Finding], labels: Mapping[str, str], placeholders: _Placeholders) -> str:
    pieces: list[str] = []
    position = 0
    for span in spans:
        pieces += [text[position : span.start], placeholders.of(labels[span.rule], text[span.start : span.end])]
        position = span.end
    return "".join([*pieces, text[position:]])


def _replace_json(text: str, spans: Sequence[Finding], labels: Mapping[str, str], placeholders: _Placeholders) -> str:
    """Replace spans of JSON text token by token: inside a string literal in place, any other value as a whole."""
    return _TOKEN.sub(lambda token: _replace_token(token, spans, labels, placeholders), text)


def _replace_token(
    token: re.Match[str], spans: Sequence[Finding], labels: Mapping[str, str], placeholders: _Placeholders
) -> str:
    whole, is_string = token.group(), token.group().startswith('"')
    first, last = (token.start() + 1, token.end() - 1) if is_string else token.span()
    inside = [
        span.model_copy(update={"start": max(span.start, first) - first, "end": min(span.end, last) - first})
        for span in spans
        if span.start < last and span.end > first
    ]
    if not inside:
        return whole
    if not is_string:
        return f'"{placeholders.of(labels[inside[0].rule], whole)}"'
    return f'"{_replace(whole[1:-1], inside, labels, placeholders)}"'
