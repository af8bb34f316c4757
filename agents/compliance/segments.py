"""The texts of a sample that rules look at, each with its place."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ctrainer.schemas.samples import ChatMessage

CONTENT = "content"
TOOLS = "tools"
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Segment:
    """One text. `field` is `content`, `tool_calls.<n>.arguments` or, with message index 0, `tools`."""

    message_index: int
    field: str
    text: str

    def scannable(self) -> str:
        r"""Return the text with JSON's escapes blanked, character for character, so that words keep their boundaries.

        >>> Segment(0, "content", '{"note": "first\\nsecond"}').scannable()
        '{"note": "first  second"}'
        """
        if "\\" not in self.text or not self.text.lstrip().startswith(("{", "[")):
            return self.text
        return _ESCAPE.sub(_blank, self.text)


def segments(messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]]) -> Iterator[Segment]:
    """Yield every text of a sample that is not empty, in order."""
    for index, message in enumerate(messages):
        if message.content:
            yield Segment(index, CONTENT, message.content)
        for number, call in enumerate(message.tool_calls):
            yield Segment(index, arguments_field(number), call.function.arguments)
    if tools:
        yield Segment(0, TOOLS, tools_text(tools))


def arguments_field(number: int) -> str:
    """Return the field name of the arguments of a message's tool call."""
    return f"tool_calls.{number}.arguments"


def tools_text(tools: Sequence[dict[str, Any]]) -> str:
    """Return the tool definitions as the JSON text that findings in them point into."""
    return orjson.dumps(list(tools)).decode()


def _blank(escape: re.Match[str]) -> str:
    whole = escape.group()
    return ' "' if whole == '\\"' else " " * len(whole)
