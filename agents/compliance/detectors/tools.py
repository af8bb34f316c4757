"""Misuse of tools: instructions in their results, calls that nobody offered, wrong arguments, data carried away."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from ctrainer.agents.compliance.conversation import Call, Tools, Turn
from ctrainer.agents.compliance.detectors.encoded import decoded_views
from ctrainer.agents.compliance.detectors.instructions import instructions_in
from ctrainer.agents.compliance.detectors.reading import reading
from ctrainer.agents.compliance.detectors.tool_schemas import Fit, fit
from ctrainer.agents.compliance.segments import CONTENT, arguments_field, name_field

TOOL_RULES: Final[Mapping[str, float]] = MappingProxyType(
    {
        "tool-result-instruction": 1.0,
        "tool-not-offered": 1.0,
        "tool-arguments-schema": 1.0,
        "tool-schema-unchecked": 0.25,
        "tool-exfiltration": 1.0,
    }
)
"""The rules of this module with their scores: a schema that cannot be checked is noted and breaches nothing."""

ToolFinding = tuple[str, int, str, int, int]
"""Rule, message index, field, start, end. Fields are those of segments, and `tool_calls.<n>.name`."""

_LINK = re.compile(r"https?://[^\s\"'<>\\]+")
_MOST_LINKS = 128
"""Links with a query in the arguments of one call that are followed back; each costs a look at all earlier text."""
_SHORTEST_CARRIED = 16
"""Characters of a value that is followed back to an earlier message."""


def tool_findings(messages: Sequence[Turn], tools: Tools) -> list[ToolFinding]:
    """Return every misuse of tools, in order of the messages. A sample without calls and results costs next to nothing.

    That a tool was not offered can be said only of a sample that offers some.
    """
    for message in messages:
        if message["tool_calls"] or message["role"] == "tool":
            return list(_findings(messages, tools))
    return []


def _findings(messages: Sequence[Turn], tools: Tools) -> Iterator[ToolFinding]:
    offered = dict(map(_definition, tools))
    texts = [reading(message["content"]).text for message in messages] if _ask(messages) else []
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            for start, end in instructions_in(message["content"]):
                yield "tool-result-instruction", index, CONTENT, start, end
        for number, call in enumerate(message["tool_calls"]):
            yield from _misfits(call, index, number, offered)
            for start, end in _carried_away(call["function"]["arguments"], texts[:index]):
                yield "tool-exfiltration", index, arguments_field(number), start, end


def _ask(messages: Sequence[Turn]) -> bool:
    """Return whether the arguments of any call may hold a link with a query."""
    return any("?" in call["function"]["arguments"] for message in messages for call in message["tool_calls"])


def _definition(tool: dict[str, Any]) -> tuple[str, Any]:
    """Return the name and the schema of a tool, in the shapes of OpenAI (old and new) and Anthropic."""
    function = tool.get("function")
    definition = function if isinstance(function, dict) else tool
    return str(definition.get("name", "")), definition.get("parameters", definition.get("input_schema"))


def _misfits(call: Call, index: int, number: int, offered: Mapping[str, Any]) -> Iterator[ToolFinding]:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    if not offered:
        return
    if name not in offered:
        yield "tool-not-offered", index, name_field(number), 0, len(name)
    elif offered[name] is not None:
        rule = _RULE_OF_FIT.get(fit(arguments, offered[name]))
        if rule is not None:
            yield rule, index, arguments_field(number), 0, len(arguments)


_RULE_OF_FIT = {Fit.BREAKS: "tool-arguments-schema", Fit.UNCHECKED: "tool-schema-unchecked"}


def _carried_away(arguments: str, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the links that carry something from earlier texts in their query: a key as it is, or text encoded.

    A link that an earlier text gives as a whole is followed, not built.
    """
    read = reading(arguments)
    links = (link for link in _LINK.finditer(read.text) if "?" in link.group())
    for link in islice(links, _MOST_LINKS):
        if not _holds(texts, link.group()) and any(_is_carried(value, texts) for value in _values(link.group())):
            yield read.original(*link.span())


def _values(link: str) -> list[str]:
    try:
        return [value for _, value in parse_qsl(urlsplit(link).query) if len(value) >= _SHORTEST_CARRIED]
    except ValueError:  # a host that is none
        return []


def _is_carried(value: str, texts: Sequence[str]) -> bool:
    decoded = (view.strip() for _, _, view in decoded_views(value))
    return (_is_key(value) and _holds(texts, value)) or any(
        len(view) >= _SHORTEST_CARRIED and _holds(texts, view) for view in decoded
    )


def _holds(texts: Sequence[str], value: str) -> bool:
    return any(value in text for text in texts)


def _is_key(value: str) -> bool:
    """Return whether a value mixes cases and digits as keys do and identifiers do not."""
    kinds = (str.islower, str.isupper, str.isdecimal)
    return " " not in value and all(any(map(kind, value)) for kind in kinds)
