"""Checks during training: what the model answers to a few public probes, now and then, in at most a tenth of the time.

Only public prompts and a model trained under differential privacy are looked at. What follows, to publish the numbers
or to stop, is post-processing, and costs no epsilon.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ctrainer.trainer.answers import distinct_share
from ctrainer.trainer.base_answers import Answers
from ctrainer.trainer.evaluation import Measured

SHARE = 0.1
"""Of the time of training that checks may take."""

PROMPTS_AT_ONCE = 8
_FIRST_COST_STEPS = 2.0
_COMPLIANCE_LOST = 0.5
_DIVERSITY_KEPT = 0.25

Judge = Callable[[Sequence[str]], Sequence[bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What answers to some probes are like: the share that is accepted, and of pairs of words that are distinct."""

    prompts: int
    compliance: Measured
    distinct_2: Measured

    @property
    def has_collapsed(self) -> bool:
        """Whether the model says far more that is not accepted than its base, or nearly always the same."""
        lost = self.compliance.base - self.compliance.adapted >= _COMPLIANCE_LOST
        return lost or self.distinct_2.adapted <= _DIVERSITY_KEPT * self.distinct_2.base


@dataclass(slots=True, kw_only=True)
class TrainingChecks:
    """Looks at the model when it may; `answer` and `base` answer prompts with the adapter and without it.

    The next check comes as soon as all checks, that one included, take no more than `SHARE` of the time of the steps.
    Each takes the next few of the prompts, in turn.
    """

    prompts: Sequence[str]
    answer: Answers
    base: Answers
    judge: Judge
    clock: Callable[[], float] = time.monotonic
    collapsed: bool = field(default=False, init=False)
    _began: float = field(init=False)
    _spent: float = field(default=0.0, init=False)
    _cost: float | None = field(default=None, init=False)
    _next: int = field(default=0, init=False)
    _newest: Snapshot | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def after(self, steps: int) -> Snapshot | None:
        """Look at the model after so many steps of this process, if it is time; else None.

        `collapsed` is set by two checks in a row that say so: one of a few prompts may be chance.
        """
        trained = self.clock() - self._began - self._spent
        cost = trained / steps * _FIRST_COST_STEPS if self._cost is None else self._cost
        if self._spent + cost > SHARE * trained:
            return None
        began = self.clock()
        found = self._look()
        self._cost = self.clock() - began
        self._spent += self._cost
        self.collapsed = found.has_collapsed and self._newest is not None and self._newest.has_collapsed
        self._newest = found
        return found

    def _look(self) -> Snapshot:
        count = min(PROMPTS_AT_ONCE, len(self.prompts))
        asked = [self.prompts[(self._next + number) % len(self.prompts)] for number in range(count)]
        self._next = (self._next + count) % len(self.prompts)
        base, adapted = self.base(asked), self.answer(asked)
        accepted = self.judge([*base, *adapted])
        return Snapshot(
            prompts=count,
            compliance=Measured(base=sum(accepted[:count]) / count, adapted=sum(accepted[count:]) / count),
            distinct_2=Measured(base=distinct_share(base, 2), adapted=distinct_share(adapted, 2)),
        )
