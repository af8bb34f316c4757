"""One step of a session from its batch to the optimizer: drawn, computed, judged by the watch, applied, and proven."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from ctrainer.trainer.batches import Batches, Unit
from ctrainer.trainer.live_proof import LiveProof
from ctrainer.trainer.noise_thread import NoiseThread
from ctrainer.trainer.per_sample import ClippedSum
from ctrainer.trainer.plan_watch import StepWatch
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.ranks import Ranks
from ctrainer.trainer.tokenization import EncodedExample


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedStep:
    """Makes one step after another, on each rank: only the leader adds noise, and judges.

    `units` are what batches are made of. The caller has told the watch what was granted.
    """

    examples: Sequence[EncodedExample]
    units: Sequence[Unit]
    batches: Batches
    step: PrivateStep
    optimizer: torch.optim.Optimizer
    proof: LiveProof
    watch: StepWatch
    ranks: Ranks
    noise_thread: NoiseThread

    def run(self, number: int) -> int:
        """Make the step of this number; return how many samples had a gradient that was not finite.

        Raises:
            PlanViolatedError: the step was not the plan's; it was not applied.
            NotTrainingError: the first steps with records did not move the adapter by signal and noise.
        """
        step = self.step
        members = self.ranks.decide(lambda: self._draw(number))
        # In order of length, so that the shares of all ranks are about equally long.
        by_length = sorted(members, key=self._tokens)
        # Drawn while the gradients are computed. The batch was drawn before, so the order is always the same.
        drawing = self.noise_thread.begin(step.noise) if self.ranks.leads else None
        signal = self.ranks.total(self._signal(self.ranks.share(by_length)))
        noise: list[Tensor] = []
        if drawing is not None:
            self.watch.clipped(signal, len(members), lambda: self._signal(members[:1]))
            noise = drawing.result()
            self.watch.drawn(step.noises.fresh(noise))
            step.set_gradient(signal.totals, noise)
            self.watch.applied(step.applied_gradient(), step.noisy_sum(signal.totals, noise))
        else:
            step.clear_gradient()
        self.ranks.follow(step.applied_gradient())
        before = self.proof.before() if self.ranks.leads else []
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if members and self.ranks.leads:
            self.proof.check(before, signal=signal.totals, noise=noise)
        return signal.not_finite

    def _draw(self, number: int) -> list[int]:
        members = self.batches.of(number)
        self.watch.sampled(members)
        return members

    def _tokens(self, unit: int) -> int:
        return sum(len(self.examples[index].token_ids) for index in self.units[unit].examples)

    def _signal(self, members: Sequence[int]) -> ClippedSum:
        groups = [[self.examples[index] for index in self.units[unit].examples] for unit in members]
        if self.step.plan.whole_users:
            return self.step.user_signal(groups)
        return self.step.signal(list(chain.from_iterable(groups)))
