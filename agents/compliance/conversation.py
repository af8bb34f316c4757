"""A conversation while it is judged: plain dictionaries in the exact shape of `ctrainer.schemas.samples.ChatMessage`.

Every sample of the flood passes here, and dictionaries are made and written in a fraction of the time of models.
What is published from them is read back as the models: the tests hold both together.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict

StrictRole: TypeAlias = Literal["system", "user", "assistant", "tool"]
Tools: TypeAlias = Sequence[dict[str, Any]]


class CalledFunction(TypedDict):
    """A function call; `arguments` is JSON text."""

    name: str
    arguments: str


class Call(TypedDict):
    """One call of a tool."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Turn(TypedDict):
    """One turn. The order of the keys is that of `ChatMessage`."""

    role: StrictRole
    content: str
    tool_calls: list[Call]
    tool_call_id: str | None
    name: str | None
