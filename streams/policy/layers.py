"""A first policy engine with a second one behind it."""

from collections import Counter
from collections.abc import Sequence

from ctrainer.agents.compliance.policy import Decision, PolicyEngine, PolicyError, PolicyInput, disputed


class LayeredEngine:
    """Lets the first engine decide, and the second one where the first gives no decision.

    Both evaluate the same policy, and the second one is asked as well each time: an answer to another question, or of
    an engine that is not what it says, lets no sample pass (`disputed`). `counts` holds how often they `agreed`,
    `disagreed`, and how often it was a `fallback`.
    """

    def __init__(self, first: PolicyEngine, second: PolicyEngine, counts: Counter[str] | None = None) -> None:
        self.name = first.name
        self.revision = first.revision
        self.is_pure = first.is_pure
        self.counts: Counter[str] = Counter() if counts is None else counts
        self._first = first
        self._second = second

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        """Return one decision for each input, in order.

        Raises:
            PolicyError: an input has no decision in either layer.
        """
        try:
            decisions = await self._first.evaluate(inputs)
        except PolicyError:
            self.counts["fallback"] += len(inputs)
            return await self._second.evaluate(inputs)
        return list(map(self._joined, decisions, await self._second.evaluate(inputs)))

    def _joined(self, one: Decision, other: Decision) -> Decision:
        agree = _effect(one) == _effect(other)
        self.counts["agreed" if agree else "disagreed"] += 1
        return one.model_copy(update={"result": other.result}) if agree else disputed(one, other)


def _effect(decision: Decision) -> tuple[object, ...]:
    """Return all of a decision that a sample feels.

    Engines may write the last digit of a score otherwise: that of the second one is told.
    """
    result = decision.result
    return result.verdict, result.redact, result.reasons
