"""An Open Policy Agent as policy engine: `POST /v1/data/<path>`, many samples in one call.

Source: the REST API of OPA. A status of 200 without `result` means that the path is undefined: never a permission.
"""

import asyncio
from collections.abc import Sequence

import orjson

from ctrainer.agents.compliance.policy import (
    Decision,
    PolicyError,
    PolicyInput,
    PolicyResult,
    PolicyUnavailableError,
)
from ctrainer.streams.policy.connection import EngineConnection

PATH = "/v1/data/ctrainer/screening/batch"
SAMPLES_AT_ONCE = 64
MOST_BYTES = 1_024
"""So long may a decision be, and twice as long as the question in addition: it names what was found there."""


class OpaEngine:
    """Decides by the policy that an OPA holds, as long as that is the policy of this revision."""

    name = "opa"
    is_pure = True

    def __init__(self, connection: EngineConnection, *, revision: str) -> None:
        self.revision = revision
        self._connection = connection

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        """Return one decision for each input, in order.

        Raises:
            PolicyUnavailableError: OPA does not answer, or holds another policy or constitution.
            PolicyError: an input has no decision.
        """
        if len(inputs) <= SAMPLES_AT_ONCE:
            return await self._part(inputs)
        parts = [inputs[start : start + SAMPLES_AT_ONCE] for start in range(0, len(inputs), SAMPLES_AT_ONCE)]
        answers = await asyncio.gather(*map(self._part, parts))
        return [decision for answer in answers for decision in answer]

    async def require(self) -> None:
        """Check that OPA answers and holds the policy of this revision.

        Raises:
            PolicyUnavailableError: it does not.
        """
        await self._part([])

    async def _part(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        answer = await self._connection.ask(PATH, {"input": {"samples": list(inputs)}})
        result = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(result, dict) or result.get("revision") != self.revision:
            raise PolicyUnavailableError("policy engine: it holds no policy of this revision")
        made = _in_order(result.get("decisions"), len(inputs))
        return [self._decision(one, entry) for one, entry in zip(inputs, made, strict=True)]

    def _decision(self, one: PolicyInput, made: object) -> Decision:
        text = _text(made)
        # Telling each of a million faults would take the event loop seconds.
        if len(text) > MOST_BYTES and len(text) > MOST_BYTES + 2 * len(orjson.dumps(one)):
            raise PolicyError(f"policy decision: got {len(text)} bytes, expected a decision")
        result = PolicyResult.from_policy(text)
        # What names a principle that found nothing would redact nothing, and let the sample pass as redacted.
        if not {finding["principle"] for finding in one["findings"]}.issuperset(result.redact):
            raise PolicyError("policy decision: got a redaction of what was not found, expected found principles")
        return Decision(result=result, decided_by=self.name, policy_revision=self.revision)


def _text(made: object) -> bytes:
    """Return an entry as JSON text.

    Raises:
        PolicyError: it is nested deeper than JSON is written.
    """
    try:
        return orjson.dumps(made)
    except TypeError as error:
        raise PolicyError("policy decision: got more nesting than a decision has") from error


def _in_order(decisions: object, count: int) -> list[object]:
    """Return the decisions by the numbers of their samples.

    Raises:
        PolicyError: a sample has none, or more than one.
    """
    entries = decisions if isinstance(decisions, list) else []
    numbers = [entry.get("sample") if isinstance(entry, dict) else None for entry in entries]
    if numbers != list(range(count)) or any(isinstance(number, bool) for number in numbers):
        raise PolicyError(f"policy decision: got {len(numbers)} of them, expected one for each of {count} samples")
    return [entry.get("decision") for entry in entries]
