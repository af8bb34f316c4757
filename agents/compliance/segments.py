"""The texts of a sample that rules look at, each with its place."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from ctrainer.agents.compliance.conversation import Tools, Turn

CONTENT = "content"
TOOLS = "tools"
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)


class Segment(NamedTuple):
    """One text. `field` is `content`, `tool_calls.<n>.arguments` or, with message index 0, `tools`."""

    message_index: int
    field: str
    text: str

    def scannable(self) -> str:
        r"""Return the text with JSON's escapes blanked, character for character, so that words keep their boundaries.

        >>> Segment(0, "content", '{"note": "first\\nsecond"}').scannable()
        '{"note": "first  second"}'
        """
        return _ESCAPE.sub(_blank, self.text) if has_escapes(self.text) else self.text


def has_escapes(text: str) -> bool:
    """Return whether a text looks like JSON that has escapes."""
    return "\\" in text and text.lstrip().startswith(("{", "["))


def segments(messages: Sequence[Turn], tools: Tools) -> list[Segment]:
    """Return every text of a sample that is not empty, in order."""
    found: list[Segment] = []
    for index, message in enumerate(messages):
        if message["content"]:
            found.append(Segment(index, CONTENT, message["content"]))
        for number, call in enumerate(message["tool_calls"]):
            found.append(Segment(index, arguments_field(number), call["function"]["arguments"]))
    if tools:
        found.append(Segment(0, TOOLS, tools_text(tools)))
    return found


def arguments_field(number: int) -> str:
    """Return the field name of the arguments of a message's tool call."""
    return f"tool_calls.{number}.arguments"


def tools_text(tools: Sequence[dict[str, Any]]) -> str:
    """Return the tool definitions as the JSON text that findings in them point into."""
    return orjson.dumps(list(tools)).decode()


def _blank(escape: re.Match[str]) -> str:
    whole = escape.group()
    return ' "' if whole == '\\"' else " " * len(whole)
