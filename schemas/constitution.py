"""The constitution: what samples must not hold, and what happens when they do."""

from enum import StrEnum

from pydantic import Field

from ctrainer.schemas.compliance import Severity
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.identity import canonical_bytes, content_digest
from ctrainer.schemas.message import Message

NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"


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
    """A pattern in the dialect that Hyperscan and RE2 share (no look-around, no back-references).

    The first group of the pattern, or the whole match without one, is the span of a finding.
    A span that one of `allow` matches whole is not a finding. `label` names what redaction puts in the span's place.
    """

    id: str = Field(pattern=NAME)
    label: str = Field(pattern=r"^[A-Z][A-Z_]*$")
    pattern: str = Field(min_length=1, max_length=4096)
    ignore_case: bool = False
    validator: str | None = None
    allow: tuple[str, ...] = ()
    score: float = Field(default=1.0, gt=0.0, le=1.0)


class Principle(Message):
    """One principle. A finding of at least `threshold` breaches it."""

    id: str = Field(pattern=NAME)
    statement: str = Field(min_length=1)
    severity: Severity
    hazard: Hazard | None = None
    action: Action
    mode: Mode = Mode.ENFORCE
    threshold: float = Field(default=0.5, gt=0.0, le=1.0)
    rules: tuple[Rule, ...] = ()


class Constitution(Message):
    """A whole document. `minimum_score` is the compliance score from which a sample may be accepted."""

    id: str = Field(pattern=NAME)
    version: str = Field(min_length=1)
    governance_hash: str
    languages: tuple[str, ...] = Field(min_length=1)
    minimum_score: float = Field(default=0.95, ge=0.0, le=1.0)
    principles: tuple[Principle, ...] = Field(min_length=1)

    @property
    def digest(self) -> str:
        """The digest of the document's canonical bytes."""
        return content_digest(canonical_bytes(self.model_dump(mode="json")))

    def reference(self) -> ConstitutionReference:
        """Return the governance hash with the digest."""
        return ConstitutionReference(hash=self.governance_hash, digest=self.digest)
