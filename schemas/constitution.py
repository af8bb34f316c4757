"""The constitution: what samples must not hold, and what happens when they do."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from ctrainer.schemas.compliance import Severity
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.identity import canonical_bytes, content_digest
from ctrainer.schemas.message import Message

Role = Literal["system", "user", "assistant", "tool"]
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
MOST_PRINCIPLES = 10_000
MOST_RULES = 1_000
"""Of one principle. Aliases make a long list of a short text: more than anybody reads is refused, not read."""


class Action(StrEnum):
    """What happens to a sample that breaches a principle."""

    REJECT = "reject"
    REDACT = "redact"
    REVISE = "revise"
    REVIEW = "review"


class Mode(StrEnum):
    """Whether a principle decides, only observes, or sleeps."""

    ENFORCE = "enforce"
    SHADOW = "shadow"
    OFF = "off"


class Hazard(StrEnum):
    """Hazard codes of the MLCommons AI safety taxonomy, with the fourteenth of Llama Guard 3."""

    VIOLENT_CRIMES = "S1"
    NON_VIOLENT_CRIMES = "S2"
    SEX_RELATED_CRIMES = "S3"
    CHILD_SEXUAL_EXPLOITATION = "S4"
    DEFAMATION = "S5"
    SPECIALIZED_ADVICE = "S6"
    PRIVACY = "S7"
    INTELLECTUAL_PROPERTY = "S8"
    INDISCRIMINATE_WEAPONS = "S9"
    HATE = "S10"
    SUICIDE_AND_SELF_HARM = "S11"
    SEXUAL_CONTENT = "S12"
    ELECTIONS = "S13"
    CODE_INTERPRETER_ABUSE = "S14"


class Rule(Message):
    """One way to see a breach: a pattern, or a detector by its name.

    A pattern is in the dialect that Hyperscan and RE2 share (no look-around, no back-references). Its first group, or
    the whole match without one, is the span of a finding. A span that one of `allow` matches whole is not a finding.
    `label` names what redaction puts in the span's place. `roles` limits a rule to turns of these roles.
    """

    id: str = Field(pattern=NAME)
    label: str = Field(pattern=r"^[A-Z][A-Z_]*$")
    pattern: str | None = Field(default=None, min_length=1, max_length=4096)
    detector: str | None = None
    ignore_case: bool = False
    validator: str | None = None
    allow: tuple[str, ...] = Field(default=(), max_length=MOST_RULES)
    roles: tuple[Role, ...] = ()
    score: float = Field(default=1.0, gt=0.0, le=1.0, strict=True)


class Principle(Message):
    """One principle. A finding of at least `threshold` breaches it.

    `critique` and `revision` are what a model is asked when an answer is revised.
    """

    id: str = Field(pattern=NAME)
    statement: str = Field(min_length=1)
    critique: str = ""
    revision: str = ""
    severity: Severity
    hazard: Hazard | None = None
    action: Action
    mode: Mode = Mode.ENFORCE
    threshold: float = Field(default=0.5, gt=0.0, le=1.0, strict=True)
    rules: tuple[Rule, ...] = Field(default=(), max_length=MOST_RULES)


class UpdateOutcome(StrEnum):
    """What became of a document on `constitution.updates`."""

    ENACTED = "enacted"
    REFUSED = "refused"


class ConstitutionUpdated(Message):
    """What became of a document. `faults` says all that must be mended; an enacted one has none.

    Workers judge by an enacted document from their next batch on; `ConstitutionInForce` says from which record.
    """

    constitution_id: str
    version: str
    outcome: UpdateOutcome
    constitution: ConstitutionReference | None
    faults: tuple[str, ...] = ()


class ConstitutionInForce(Message):
    """From `from_offset` on, the samples of a partition are judged by this constitution, until another event says so.

    The event is committed together with the first decisions under it.
    """

    topic: str
    partition: int = Field(ge=0)
    from_offset: int = Field(ge=0)
    constitution: ConstitutionReference


class Constitution(Message):
    """A whole document. `minimum_score` is the compliance score from which a sample may be accepted."""

    id: str = Field(pattern=NAME)
    version: str = Field(min_length=1)
    governance_hash: str
    languages: tuple[str, ...] = Field(min_length=1)
    minimum_score: float = Field(default=0.95, ge=0.0, le=1.0, strict=True)
    principles: tuple[Principle, ...] = Field(min_length=1, max_length=MOST_PRINCIPLES)

    @property
    def digest(self) -> str:
        """The digest of the document's canonical bytes."""
        return content_digest(canonical_bytes(self.model_dump(mode="json")))

    def reference(self) -> ConstitutionReference:
        """Return the governance hash with the digest."""
        return ConstitutionReference(hash=self.governance_hash, digest=self.digest)
