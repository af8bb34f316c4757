"""What was decided about a sample, and why, without its text."""

from enum import StrEnum

from pydantic import Field

from ctrainer.schemas.message import Message
from ctrainer.schemas.samples import Redaction, Repair, SourceReference


class Verdict(StrEnum):
    """The outcome for a sample, for now: those to revise, to review and parked ones get another decision later.

    A revised one is accepted: its answers were rewritten.
    """

    ACCEPT = "accept"
    REDACT = "redact"
    REVISE = "revise"
    REVISED = "revised"
    REVIEW = "review"
    REJECT = "reject"
    PARK = "park"


class Guarded(StrEnum):
    """What an external guard model said of a sample.

    `asked`: a verdict on every turn that it was asked about; `spared`: it was asked about none; `unclear`: an answer
    that is no verdict; `unavailable`: none.
    """

    ASKED = "asked"
    SPARED = "spared"
    UNCLEAR = "unclear"
    UNAVAILABLE = "unavailable"


class Severity(StrEnum):
    """How bad a breach of a principle is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class Finding(Message):
    """One place where a rule of a principle hits. `start` and `end` are character offsets in a text of the message.

    `field` says in which: `content`, `name`, `tool_call_id`, `tool_calls.<n>.id`, `.name` or `.arguments`, or `tools`.
    """

    principle: str
    rule: str
    severity: Severity
    hazard: str | None = None
    message_index: int = Field(ge=0)
    field: str = "content"
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    score: float = Field(ge=0.0, le=1.0)


class SampleJudged(Message):
    """One decision on a sample; of several, that with the highest `attempt` holds.

    `score` is 1 minus the highest violation probability over enforced principles, what was redacted left out.
    `decided_by` names the policy layer, or `person` after a review, or `revision`: then `reasons` are the principles
    that were breached and, where no revision was accepted, the checks that failed (`revision:CHECK`).
    `guard` is there where a guard model is configured.
    """

    sample_id: str
    tenant: str
    workload_id: str
    source: SourceReference
    verdict: Verdict
    score: float = Field(ge=0.0, le=1.0)
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    shadow_findings: tuple[Finding, ...] = ()
    redactions: tuple[Redaction, ...] = ()
    repairs: tuple[Repair, ...] = ()
    attempt: int = Field(default=0, ge=0)
    decided_by: str
    policy_revision: str
    detector_version: str
    guard: Guarded | None = None
