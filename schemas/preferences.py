"""What a revision teaches: of two conversations, which one is better."""

from typing import Any

from pydantic import Field

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message
from ctrainer.schemas.samples import ChatMessage, SampleRevision, SourceReference


class PreferencePair(Message):
    """A conversation before and after its revision; both are redacted as the constitution asks.

    `rejected` holds what breached a principle: it is here to learn from the difference, and never to be imitated.
    Conversations are equal but for the content of the turns in `revision.turns`.
    """

    sample_id: str
    tenant: str
    workload_id: str
    source: SourceReference
    logged_at: int
    conversation_id: str
    user_digest: str | None
    chosen: tuple[ChatMessage, ...] = Field(min_length=2)
    rejected: tuple[ChatMessage, ...] = Field(min_length=2)
    tools: tuple[dict[str, Any], ...] = ()
    revision: SampleRevision
    constitution: ConstitutionReference
