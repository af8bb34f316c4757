"""Human review on the wire."""

from enum import StrEnum

from pydantic import Field

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message
from ctrainer.schemas.samples import SourceReference


class ReviewVerdict(StrEnum):
    """What a person decided."""

    ACCEPT = "accept"
    REJECT = "reject"


class ReviewDecision(Message):
    """A person's verdict on one sample in review; who signed it decided. `parked` is its record on `samples.slow-lane`.

    The first decision on a sample counts. `constitution` is what the person judged by; it has to be the one in force.
    """

    sample_id: str
    tenant: str
    parked: SourceReference
    verdict: ReviewVerdict
    reason: str = Field(max_length=2000)
    constitution: ConstitutionReference
