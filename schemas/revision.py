"""What becomes of revision itself."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message


class CollapseMeasure(StrEnum):
    """What shows that a model has collapsed."""

    REFUSALS = "refusals"
    DIVERSITY = "diversity"


class RevisionHalted(Message):
    """Revision of a partition by this model stops after this record; what waits stays there until `RevisionResumed`.

    `before` is the share in the originals and `after` that in what the model made of them: of refusals among its
    drafts, or of distinct pairs of words among accepted revisions.
    """

    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    model: str
    measure: CollapseMeasure
    before: float = Field(ge=0.0, le=1.0)
    after: float = Field(ge=0.0, le=1.0)
    constitution: ConstitutionReference


class ResumeRevision(Message):
    """Let a model that was halted rewrite again. What it made before the halt counts no more. It serves every tenant.

    `topic`, `partition` and `offset` are those of the halt: the word lifts no later one. `reason` quotes no sample.
    """

    kind: Literal["ResumeRevision"]
    topic: str
    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    model: str
    reason: str = Field(max_length=2000)
    constitution: ConstitutionReference


class RevisionResumed(Message):
    """A person has lifted the halt of a partition; `resumed_by` is the key id that signed the command.

    `reason` is redacted as the constitution asks.
    """

    topic: str
    partition: int = Field(ge=0)
    model: str
    reason: str
    resumed_by: str
    constitution: ConstitutionReference
