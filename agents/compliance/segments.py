"""The texts of a sample that rules look at, each with its place."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from ctrainer.agents.compliance.conversation import Tools, Turn

CONTENT = "content"
TOOLS = "tools"
NAME = "name"
CALL_ID = "tool_call_id"


class Segment(NamedTuple):
    """One text. `field` is `content`, `name`, `tool_call_id`, `tool_calls.<n>.arguments`, `.name` or `.id`.

    With message index 0 it may also be `tools`.
    """

    message_index: int
    field: str
    text: str


def segments(messages: Sequence[Turn], tools: Tools) -> list[Segment]:
    """Return every text of a sample that is not empty, in order."""
    found: list[Segment] = []
    for index, message in enumerate(messages):
        if message["content"]:
            found.append(Segment(index, CONTENT, message["content"]))
        if message["tool_calls"] or message["name"] or message["tool_call_id"]:
            found += _names(index, message)
    if tools:
        found.append(Segment(0, TOOLS, tools_text(tools)))
    return found


def _names(index: int, message: Turn) -> Iterator[Segment]:
    """Yield what a turn calls, and what it is called by: a name or an id can hold anything."""
    for field, text in ((NAME, message["name"]), (CALL_ID, message["tool_call_id"])):
        if text:
            yield Segment(index, field, text)
    for number, call in enumerate(message["tool_calls"]):
        yield Segment(index, id_field(number), call["id"])
        yield Segment(index, name_field(number), call["function"]["name"])
        yield Segment(index, arguments_field(number), call["function"]["arguments"])


def id_field(number: int) -> str:
    """Return the field name of the id of a message's tool call."""
    return f"tool_calls.{number}.id"


def name_field(number: int) -> str:
    """Return the field name of what a message's tool call names."""
    return f"tool_calls.{number}.name"


def arguments_field(number: int) -> str:
    """Return the field name of the arguments of a message's tool call."""
    return f"tool_calls.{number}.arguments"


def tools_text(tools: Sequence[dict[str, Any]]) -> str:
    """Return the tool definitions as the JSON text that findings in them point into."""
    return orjson.dumps(list(tools)).decode()
