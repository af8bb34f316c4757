"""Human review on the wire."""

from enum import StrEnum

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message


class ReviewVerdict(StrEnum):
    """What a person decided."""

    ACCEPT = "accept"
    REJECT = "reject"


class ReviewDecision(Message):
    """A person's verdict on one sample in review."""

    sample_id: str
    tenant: str
    reviewer: str
    verdict: ReviewVerdict
    reason: str
    constitution: ConstitutionReference
