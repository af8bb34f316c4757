"""What becomes of revision itself."""

from enum import StrEnum

from pydantic import Field

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message


class CollapseMeasure(StrEnum):
    """What shows that a model has collapsed."""

    REFUSALS = "refusals"
    DIVERSITY = "diversity"


class RevisionHalted(Message):
    """Revision of a partition stops after this record, until its worker is started anew; what waits stays there.

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
