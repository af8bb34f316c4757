"""The decision: findings and metadata in, a verdict out, by a Rego policy evaluated in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol, Self

import hobofan_regorus
import orjson
from pydantic import Field, ValidationError, model_validator

from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.identity import canonical_bytes, content_digest
from ctrainer.schemas.message import Message, describe_faults

PolicyInput = Mapping[str, Any]
DECISION = "data.ctrainer.screening.decision"
_DISPUTED = "policy-layers-disagree"


class PolicyError(ConstitutionalTrainerError):
    """The policy gave no decision. Nothing may be allowed on that ground."""


class PolicyUnavailableError(PolicyError):
    """No layer could be asked: the same input may be decided later."""


class PolicyResult(Message):
    """What the policy decided. `redact` names the principles whose breaches must be redacted."""

    verdict: Verdict
    score: float = Field(ge=0.0, le=1.0)
    reasons: tuple[str, ...]
    redact: tuple[str, ...]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.verdict is Verdict.REDACT and not self.redact) or (self.verdict is Verdict.ACCEPT and self.redact):
            raise ValueError("redact must name what a verdict of redact is about, and nothing under accept")
        return self

    @classmethod
    def from_policy(cls, value: str | bytes) -> "PolicyResult":
        """Read a decision.

        Raises:
            PolicyError: the value is undefined or not a decision.
        """
        try:
            result = cls.model_validate_json(value)
        except ValidationError as error:
            raise PolicyError(f"policy decision: got {describe_faults(error)}, expected a decision") from error
        if result.verdict in {Verdict.PARK, Verdict.REVISED}:
            raise PolicyError(f"policy decision: got {result.verdict.value}, which is no decision of a policy")
        return result


class Decision(Message):
    """A result with who decided: the name of the engine, and the revision of the policy that it evaluated."""

    result: PolicyResult
    decided_by: str
    policy_revision: str


def outage(revision: str, reason: str = "policy-unavailable") -> Decision:
    """Return what stands for the decision that no layer could be asked for: the sample is parked."""
    result = PolicyResult(verdict=Verdict.PARK, score=0.0, reasons=(reason,), redact=())
    return Decision(result=result, decided_by="none", policy_revision=revision)


def parked(decision: Decision, reason: str) -> Decision:
    """Return a decision that waits for what is out of reach now; a rejection needs nothing more and stands."""
    return decision if decision.result.verdict is Verdict.REJECT else outage(decision.policy_revision, reason)


def doubted(decision: Decision, reason: str) -> Decision:
    """Return a decision that a person has to make where it would not reject, redacted as before."""
    if decision.result.verdict in {Verdict.REJECT, Verdict.PARK}:
        return decision
    reasons = (*decision.result.reasons, reason)
    result = decision.result.model_copy(update={"verdict": Verdict.REVIEW, "reasons": reasons})
    return decision.model_copy(update={"result": result})


def disputed(first: Decision, second: Decision) -> Decision:
    """Return what holds where two layers with the same policy decide otherwise: one of them is wrong.

    The sample is rejected where either rejects, else a person decides, and it is redacted as either asks.
    """
    redact = tuple(sorted({*first.result.redact, *second.result.redact}))
    changes: dict[str, object] = {"redact": redact}
    if first.result.verdict is Verdict.REJECT:
        changes |= {"verdict": Verdict.REJECT, "score": 0.0, "reasons": (_DISPUTED,)}
    either = second.result.model_copy(update=changes)
    decided_by = f"{first.decided_by}|{second.decided_by}"
    return doubted(second.model_copy(update={"result": either, "decided_by": decided_by}), _DISPUTED)


class PolicyEngine(Protocol):
    """Something that decides. Decisions of another engine, such as a fallback, bear that engine's name.

    One that `is_pure` always decides the same of the same input under the same revision: only then may anybody remember
    it.
    """

    name: str
    revision: str
    is_pure: bool

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        """Return one decision for each input, in order.

        Raises:
            PolicyUnavailableError: an outage; asking again later may help.
            PolicyError: an input has no decision.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBundle:
    """Rego text and the data it reads. The revision is the digest of both, and stands in the data as `revision`."""

    rego: str
    data: Mapping[str, Any]

    @property
    def revision(self) -> str:
        """The digest of the policy and its data."""
        return content_digest(canonical_bytes({"rego": self.rego, "data": self.data}))

    def documents(self) -> dict[str, Any]:
        """Return what an engine is given as data."""
        return {**self.data, "revision": self.revision}


def bundle_of(constitution: Constitution) -> PolicyBundle:
    """Return the shipped policy with a constitution as its data."""
    data = {
        "constitution": {
            "digest": constitution.reference().digest,
            "minimum_score": constitution.minimum_score,
        },
        "principles": {
            principle.id: principle.model_dump(mode="json", include={"action", "mode", "threshold", "severity"})
            for principle in constitution.principles
        },
    }
    rego = files("ctrainer.agents.compliance").joinpath("decision.rego").read_text(encoding="utf-8")
    return PolicyBundle(rego=rego, data=data)


class RegorusEngine:
    """The bundle on the Regorus interpreter. One object belongs to the thread that made it."""

    name = "regorus"
    is_pure = True

    def __init__(self, bundle: PolicyBundle) -> None:
        self.revision = bundle.revision
        self._engine = hobofan_regorus.Engine()
        self._engine.add_policy("decision.rego", bundle.rego)
        self._engine.add_data_json(canonical_bytes(bundle.documents()).decode())

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        """Return one decision for each input, in order.

        Raises:
            PolicyError: an input has no decision.
        """
        return [self._evaluate(one) for one in inputs]

    def _evaluate(self, one: PolicyInput) -> Decision:
        self._engine.set_input_json(orjson.dumps(one).decode())
        try:
            answer = self._engine.eval_rule_as_json(DECISION)
        except RuntimeError as error:
            raise PolicyError("policy decision: the evaluation failed") from error
        result = PolicyResult.from_policy(answer)
        return Decision(result=result, decided_by=self.name, policy_revision=self.revision)
