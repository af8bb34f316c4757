"""A session watches its own steps against its frozen plan and its grants, and stops at once where they differ.

A breach is found before the optimizer takes the step, and so before any later noise is drawn. What is certain (clip
norm, grant, what was applied) is compared; what is random (noise, batches) is judged by tests of bounded false alarms.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from ctrainer.schemas.privacy import Mechanism
from ctrainer.trainer.errors import PlanViolatedError
from ctrainer.trainer.noise import noise_gain
from ctrainer.trainer.noise_watch import NoiseWatch
from ctrainer.trainer.per_sample import ClippedSum
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.sampling_watch import PassWatch, SamplingWatch

FALSE_ALARM = 1e-12
"""The probability that a sound process of a session ever raises an alarm: 1e-9 for a session of 1,000 processes."""

_ROUNDING = 1e-3
_APPLIED = 1e-2
_SPOT_CHECK_STEPS = 64


class StepWatch(Protocol):
    """What a session tells of each step, in this order; whoever watches may raise `PlanViolatedError`."""

    def granted(self, first: int, steps: int, mechanism: Mechanism | None) -> None:
        """The steps `[first, first + steps)` were charged, each to be run once, for a mechanism."""

    def begins(self, step: int) -> None:
        """A step begins."""

    def sampled(self, members: Sequence[int]) -> None:
        """These are the units of the step."""

    def clipped(self, signal: ClippedSum, samples: int, alone: Callable[[], ClippedSum]) -> None:
        """This is the sum of their clipped gradients; `alone` computes that of one of them."""

    def drawn(self, noise: Sequence[Tensor]) -> None:
        """This is new of the step's noise."""

    def applied(self, gradients: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """These gradients are about to be applied, in place of the sum of signal and noise."""


@dataclass(frozen=True, slots=True)
class Unwatched:
    """Watches a session without privacy: there is no plan that it could break."""

    def granted(self, first: int, steps: int, mechanism: Mechanism | None) -> None:
        """Do nothing."""

    def begins(self, step: int) -> None:
        """Do nothing."""

    def sampled(self, members: Sequence[int]) -> None:
        """Do nothing."""

    def clipped(self, signal: ClippedSum, samples: int, alone: Callable[[], ClippedSum]) -> None:
        """Do nothing."""

    def drawn(self, noise: Sequence[Tensor]) -> None:
        """Do nothing."""

    def applied(self, gradients: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """Do nothing."""


@dataclass(slots=True, kw_only=True)
class PlanWatch:
    """Watches one process of a session with `records` records, or whatever else its batches are made of.

    Every method raises `PlanViolatedError` where what it is told is not of the plan; the message has no private number.
    """

    plan: PrivacyPlan
    records: int
    _noise: NoiseWatch = field(init=False)
    _sampling: SamplingWatch | PassWatch = field(init=False)
    _granted: set[int] = field(default_factory=set, init=False)
    _signals: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        plan, half = self.plan, FALSE_ALARM / 2
        scale = plan.noise_multiplier * plan.clip_norm * noise_gain(plan)
        self._noise = NoiseWatch(scale=scale, draws=plan.steps, false_alarm=half)
        self._sampling = (
            PassWatch(records=self.records)
            if plan.mode.is_single_pass
            else SamplingWatch(rate=plan.sampling_rate, records=self.records, draws=plan.steps, false_alarm=half)
        )

    def granted(self, first: int, steps: int, mechanism: Mechanism | None) -> None:
        """Learn that the steps `[first, first + steps)` were charged, each to be run once, for a mechanism."""
        if mechanism is not None and _promise(mechanism) != _promise(self.plan):
            raise PlanViolatedError("mechanism-out-of-plan", "the grant is for another mechanism than the plan's")
        self._granted.update(range(first, first + steps))

    def begins(self, step: int) -> None:
        """Take a step off its grant, before anything of it is drawn."""
        if step not in self._granted:
            raise PlanViolatedError("step-without-grant", f"step {step} was about to run, and no grant covers it")
        self._granted.remove(step)

    def sampled(self, members: Sequence[int]) -> None:
        """Judge the batch of a step."""
        fault = self._sampling.fault(members)
        if fault is not None:
            raise PlanViolatedError("sampler-out-of-plan", f"the sampler does not fit the plan: {fault}")

    def clipped(self, signal: ClippedSum, samples: int, alone: Callable[[], ClippedSum]) -> None:
        """Judge the sum of the clipped gradients of a batch.

        `alone` computes that of one of its records; it is called for the first batch with records, and now and then.
        """
        limit = self.plan.clip_norm * (1 + _ROUNDING)
        sound = signal.largest <= limit and _norm(signal.totals) <= samples * limit
        if sound and samples:
            sound = self._signals % _SPOT_CHECK_STEPS != 0 or _norm(alone().totals) <= limit
            self._signals += 1
        if not sound:
            raise PlanViolatedError("clip-out-of-plan", f"a gradient passed the clip norm {self.plan.clip_norm:g}")

    def drawn(self, noise: Sequence[Tensor]) -> None:
        """Judge the noise of a step."""
        fault = self._noise.fault(noise)
        if fault is not None:
            raise PlanViolatedError("noise-out-of-plan", f"the noise of a step is not the plan's: {fault}")

    def applied(self, gradients: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
        """Compare what the optimizer is about to take with the sum of signal and noise, number by number.

        The gradients must be that sum, divided by the expected batch size of the plan, up to rounding. In one flat
        tensor each: for hundreds of weights a GPU would wait for the launches.
        """
        found, due = (torch.cat([part.flatten() for part in parts]) for parts in (gradients, expected))
        difference = torch.add(due, found, alpha=-self.plan.expected_batch_size)
        if not _norm([difference]) <= _APPLIED * _norm([due]):
            message = "a step's gradient is not its clipped sum and noise over the expected batch size"
            raise PlanViolatedError("gradient-out-of-plan", message)


def _norm(tensors: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all numbers together; infinite where one is not finite."""
    norm = float(get_total_norm([tensor.float() for tensor in tensors], foreach=None))
    return norm if math.isfinite(norm) else math.inf


def _promise(source: Mechanism | PrivacyPlan) -> tuple[object, ...]:
    """Return all that a plan and a mechanism both say."""
    return (
        source.noise_multiplier,
        source.sampling_rate,
        source.clip_norm,
        source.expected_batch_size,
        source.mode,
        source.unit,
        source.adjacency,
        source.records_per_user,
        source.whole_users,
        source.bands,
    )
