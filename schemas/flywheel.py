"""Logged traffic as producers send it: Data Flywheel 1.0 and NeMo Agent Toolkit 1.0/1.1 records.

These shapes are as open as the contracts they read: unknown keys are ignored, optionals may be null, tool arguments may
be text or an object. What comes out of a record is the strict `ChatMessage` (`ctrainer.agents.compliance.shape`).
They are typed dictionaries: pydantic reads these twice as fast as models. Records of plain talk have a faster reader
still (`ctrainer.agents.compliance.plain_record`), which takes nothing that these shapes would not.
Source: the "Log schema" of NVIDIA's Data Flywheel blueprint, and the records of its exporter in the NeMo Agent Toolkit.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from ctrainer.schemas.training import Name

CONTRACT_VERSIONS = frozenset({"1.0", "1.1"})
"""The record versions of the NeMo Agent Toolkit; a record without one follows Data Flywheel 1.0."""

MOST_OF_A_NAME = 1_024
"""Characters of the name of a model: decisions are remembered by it."""
Role = Literal["system", "developer", "user", "human", "assistant", "ai", "chain", "tool", "function"]


class LoggedFunction(TypedDict):
    """The called function; OpenAI logs its arguments as JSON text, the agent toolkit as an object."""

    name: Annotated[str, Field(min_length=1)]
    arguments: NotRequired[str | dict[str, Any] | None]


class LoggedToolCall(TypedDict):
    """One call of a tool; the agent toolkit gives no id."""

    id: NotRequired[str | None]
    type: NotRequired[Literal["function"] | None]
    function: LoggedFunction


class LoggedPart(TypedDict):
    """One part of a message whose content is a list."""

    type: str
    text: NotRequired[str | None]


class LoggedMessage(TypedDict):
    """One turn, in any of the accepted dialects."""

    role: Role
    content: NotRequired[str | list[LoggedPart] | None]
    tool_calls: NotRequired[list[LoggedToolCall] | None]
    tool_call_id: NotRequired[str | None]
    name: NotRequired[str | None]


class LoggedAnswer(TypedDict):
    """The message of a choice; some producers leave its role out."""

    role: NotRequired[Literal["assistant", "ai", "chain"]]
    content: NotRequired[str | list[LoggedPart] | None]
    tool_calls: NotRequired[list[LoggedToolCall] | None]
    tool_call_id: NotRequired[str | None]
    name: NotRequired[str | None]


class LoggedRequest(TypedDict):
    """An OpenAI chat-completions request."""

    messages: NotRequired[list[LoggedMessage] | None]
    tools: NotRequired[list[dict[str, Any]] | None]
    model: NotRequired[Annotated[str, Field(max_length=MOST_OF_A_NAME)] | None]
    user: NotRequired[str | None]
    metadata: NotRequired[dict[str, Any] | None]


class LoggedChoice(TypedDict):
    """One answer of the model."""

    message: LoggedAnswer


class LoggedResponse(TypedDict):
    """An OpenAI chat completion."""

    choices: NotRequired[list[LoggedChoice] | None]


class FlywheelRecord(TypedDict):
    """One logged request and response. `timestamp` is in epoch seconds; some producers give milliseconds."""

    timestamp: Annotated[float, Field(ge=0, lt=1e14, allow_inf_nan=False)]
    client_id: Name
    workload_id: Name
    request: LoggedRequest
    response: LoggedResponse
    contract_version: NotRequired[str | None]
    error_details: NotRequired[str | None]
    constitutional_hash: NotRequired[str | None]


FLYWHEEL_RECORD: TypeAdapter[FlywheelRecord] = TypeAdapter(FlywheelRecord)
"""Reads and checks a record."""
