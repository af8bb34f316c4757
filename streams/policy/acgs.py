"""The policy engine of ACGS, which may veto what the policy in this process lets pass.

It answers `allow` for a whole action and knows neither redaction nor revision, so those stay with the policy in
process; where it does not allow, the sample is rejected. Both of its contracts are spoken: `/v1/evaluate`, as the
engine serves it, and `/api/v1/evaluate`, as its clients call it. No sample text is sent.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias

from ctrainer.agents.compliance.policy import (
    Decision,
    PolicyEngine,
    PolicyInput,
    PolicyUnavailableError,
    parked,
)
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.identity import canonical_bytes, content_digest
from ctrainer.streams.policy.connection import EngineConnection

ACTION = "constitutional_evaluation"
MOST_REASONS = 32
"""So that the events about a sample stay small, whatever an engine says."""
Question = Callable[[PolicyInput, str], dict[str, Any]]
Veto: TypeAlias = tuple[str, ...] | None
"""The engine's reasons against a sample, or None where it allows it."""


def as_served(one: PolicyInput, governance_hash: str) -> dict[str, Any]:
    """Return a question in the contract of `/v1/evaluate`."""
    return {
        "action": ACTION,
        "agent_id": "constitutional-trainer",
        "input_data": dict(one),
        "context": {"constitutional_hash": governance_hash},
    }


def as_called(one: PolicyInput, governance_hash: str) -> dict[str, Any]:
    """Return a question in the contract of `/api/v1/evaluate`."""
    return {
        "action": ACTION,
        "content": "",
        "context": dict(one),
        "constitutional_hash": governance_hash,
        "evaluation_id": content_digest(canonical_bytes(one)).removeprefix("sha256:")[:16],
        "timestamp": datetime.now(UTC).isoformat(),
    }


class AcgsEngine:
    """Asks an ACGS engine about each sample, beside the policy in process. What it decides by has no revision here."""

    is_pure = False

    def __init__(
        self,
        connection: EngineConnection,
        *,
        path: str,
        question: Question,
        governance_hash: str,
        local: PolicyEngine,
    ) -> None:
        self.name = f"acgs+{local.name}"
        self.revision = local.revision
        self._connection = connection
        self._path = path
        self._question = question
        self._governance_hash = governance_hash
        self._local = local

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        """Return one decision for each input, in order; one that parks where the engine does not answer this input.

        Raises:
            PolicyUnavailableError: the engine answers none, or without saying, or with a contradiction about whether
                it allows.
            PolicyError: an input has no decision.
        """
        decisions = await self._local.evaluate(inputs)
        vetoes = await asyncio.gather(*map(self._heard, inputs))
        outages = [veto for veto in vetoes if isinstance(veto, PolicyUnavailableError)]
        if outages and len(outages) == len(inputs):
            raise outages[0]
        return [self._joined(decision, veto) for decision, veto in zip(decisions, vetoes, strict=True)]

    async def _heard(self, one: PolicyInput) -> Veto | PolicyUnavailableError:
        try:
            return await self._veto(one)
        except PolicyUnavailableError as error:
            return error

    async def _veto(self, one: PolicyInput) -> Veto:
        """Return the engine's reasons against a sample, or None where it allows it."""
        answer = await self._connection.ask(self._path, self._question(one, self._governance_hash))
        allow = answer.get("allow") if isinstance(answer, dict) else None
        score = answer.get("confidence_score") if isinstance(answer, dict) else None
        if not isinstance(allow, bool) or isinstance(score, bool) or not isinstance(score, int | float):
            raise PolicyUnavailableError("policy engine: expected allow and confidence_score")
        if not 0 <= score <= 1:
            raise PolicyUnavailableError("policy engine: expected a confidence_score from 0 to 1")
        violations = answer.get("violations")
        if allow and violations:
            raise PolicyUnavailableError("policy engine: expected no violations of what it allows")
        if allow:
            return None
        texts = (one[:256] for one in violations if isinstance(one, str)) if isinstance(violations, list) else ()
        return tuple(sorted(islice(texts, MOST_REASONS))) or ("policy-engine-denied",)

    def _joined(self, decision: Decision, veto: Veto | PolicyUnavailableError) -> Decision:
        if isinstance(veto, PolicyUnavailableError):
            return parked(decision, "policy-unavailable")
        named = decision.model_copy(update={"decided_by": self.name})
        if veto is None or decision.result.verdict is Verdict.REJECT:
            return named
        result = decision.result.model_copy(
            update={"verdict": Verdict.REJECT, "score": 0.0, "reasons": veto, "redact": ()}
        )
        return named.model_copy(update={"result": result})
