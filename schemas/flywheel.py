"""Logged traffic as producers send it: Data Flywheel 1.0 and NeMo Agent Toolkit 1.0/1.1 records.

These models are as open as the contracts they read: unknown keys are ignored, optionals may be null, tool arguments may
be text or an object. What comes out of a record is the strict `ChatMessage` (`ctrainer.agents.compliance.shape`).
Source: the "Log schema" of NVIDIA's Data Flywheel blueprint, and the records of its exporter in the NeMo Agent Toolkit.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ctrainer.schemas.training import Name

CONTRACT_VERSIONS = frozenset({"1.0", "1.1"})
"""The record versions of the NeMo Agent Toolkit; a record without one follows Data Flywheel 1.0."""

Role = Literal["system", "developer", "user", "human", "assistant", "ai", "chain", "tool", "function"]


class Logged(BaseModel):
    """A part of a record of somebody else's contract: frozen, and open to keys that we do not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LoggedFunction(Logged):
    """The called function; OpenAI logs its arguments as JSON text, the agent toolkit as an object."""

    name: Annotated[str, Field(min_length=1)]
    arguments: str | dict[str, Any] | None = None


class LoggedToolCall(Logged):
    """One call of a tool; the agent toolkit gives no id."""

    id: str | None = None
    type: Literal["function"] | None = None
    function: LoggedFunction


class LoggedPart(Logged):
    """One part of a message whose content is a list."""

    type: str
    text: str | None = None


class LoggedMessage(Logged):
    """One turn, in any of the accepted dialects."""

    role: Role
    content: str | tuple[LoggedPart, ...] | None = None
    tool_calls: tuple[LoggedToolCall, ...] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class LoggedAnswer(LoggedMessage):
    """The message of a choice; some producers leave its role out."""

    role: Literal["assistant", "ai", "chain"] = "assistant"


class LoggedRequest(Logged):
    """An OpenAI chat-completions request."""

    messages: tuple[LoggedMessage, ...] | None = None
    tools: tuple[dict[str, Any], ...] | None = None
    model: str | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None


class LoggedChoice(Logged):
    """One answer of the model."""

    message: LoggedAnswer


class LoggedResponse(Logged):
    """An OpenAI chat completion."""

    choices: tuple[LoggedChoice, ...] | None = None


class FlywheelRecord(Logged):
    """One logged request and response. `timestamp` is in epoch seconds; some producers give milliseconds."""

    timestamp: Annotated[float, Field(ge=0, lt=1e14, allow_inf_nan=False)]
    client_id: Name
    workload_id: Name
    request: LoggedRequest
    response: LoggedResponse
    contract_version: str | None = None
    error_details: str | None = None
    constitutional_hash: str | None = None
