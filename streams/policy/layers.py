"""A first policy engine with a second one behind it."""

from collections import Counter
from collections.abc import Sequence

from ctrainer.agents.compliance.policy import Decision, PolicyEngine, PolicyError, PolicyInput


class LayeredEngine:
    """Lets the first engine decide, and the second one where the first gives no decision.

    Both evaluate the same policy. So that a difference between them does not stay unseen, the second one is asked as
    well each time, and `counts` holds how often they `agreed`, `disagreed`, and how often it was a `fallback`.
    """

    def __init__(self, first: PolicyEngine, second: PolicyEngine, counts: Counter[str] | None = None) -> None:
        self.name = first.name
        self.revision = first.revision
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
        for one, other in zip(decisions, await self._second.evaluate(inputs), strict=True):
            self.counts["agreed" if one.result == other.result else "disagreed"] += 1
        return decisions
