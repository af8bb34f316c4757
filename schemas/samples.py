"""Samples after judgement."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.identity import canonical_bytes, content_digest
from ctrainer.schemas.message import Message


class SourceReference(Message):
    """The Kafka record that a sample came from."""

    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)


class ToolFunction(Message):
    """A function call as the model wrote it; `arguments` is JSON text, as in the OpenAI contract."""

    name: str
    arguments: str


class ToolCall(Message):
    """One call of a tool."""

    id: str
    type: Literal["function"] = "function"
    function: ToolFunction


class ChatMessage(Message):
    """One turn of a conversation, in the OpenAI chat-completions shape."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


def digest_of_conversation(messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]]) -> str:
    """Return the digest that names a conversation by its content alone."""
    turns = [message.model_dump(mode="json") for message in messages]
    return content_digest(canonical_bytes({"messages": turns, "tools": list(tools)}))


class Repair(Message):
    """A safe change that made a record well-formed: its code and the place, never the text."""

    code: str
    path: str


class Redaction(Message):
    """How many spans of one kind were replaced in one message."""

    rule: str
    message_index: int
    count: int = Field(ge=1)


class SampleRevision(Message):
    """How the answers of a sample were rewritten.

    `principles` were breached, `turns` are the indices of the rewritten messages. `rounds` is the most that one of them
    took. `model` is None where leaving out sentences was enough. `original_digest` is the `content_digest` of the
    sample before.
    """

    principles: tuple[str, ...] = Field(min_length=1)
    turns: tuple[int, ...] = Field(min_length=1)
    rounds: int = Field(ge=1)
    model: str | None
    original_digest: str


class AcceptedSample(Message):
    """A sample as it may be trained on: redacted where the constitution asks for it, with where it came from.

    `content_digest` covers messages and tools as they stand here. `conversation_id` groups the records of one
    conversation; `user_digest` stands for the user without naming them. Both keep a split from leaking. `revision` says
    how answers were rewritten, None where they are as they were logged.
    """

    sample_id: str
    tenant: str
    workload_id: str
    source: SourceReference
    logged_at: int
    conversation_id: str
    user_digest: str | None
    messages: tuple[ChatMessage, ...] = Field(min_length=2)
    tools: tuple[dict[str, Any], ...] = ()
    redactions: tuple[Redaction, ...] = ()
    repairs: tuple[Repair, ...] = ()
    content_digest: str
    constitution: ConstitutionReference
    revision: SampleRevision | None = None


class SlowLane(StrEnum):
    """What a sample waits for."""

    REVISION = "revision"
    REVIEW = "review"
    POLICY = "policy"


class ParkedSample(Message):
    """A sample that waits, with all that is needed to judge it again.

    The fields it shares with `AcceptedSample` mean the same. What the policy let be redacted is redacted already; a
    sample that waits for a policy is as it came. `reasons` are the principles it breaches. `attempt` is the number of
    the next decision on it.
    """

    waits_for: SlowLane
    reasons: tuple[str, ...]
    attempt: int = Field(ge=1)
    model: str
    sample_id: str
    tenant: str
    workload_id: str
    source: SourceReference
    logged_at: int
    conversation_id: str
    user_digest: str | None
    messages: tuple[ChatMessage, ...] = Field(min_length=2)
    tools: tuple[dict[str, Any], ...] = ()
    redactions: tuple[Redaction, ...] = ()
    repairs: tuple[Repair, ...] = ()
    content_digest: str
    constitution: ConstitutionReference
