"""Private training: Poisson batches, clipping, Gaussian noise, AdamW, and epsilon reserved before it is spent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from ctrainer.schemas.privacy import BudgetGranted, BudgetRefused
from ctrainer.trainer.checkpoint import Checkpoint, Checkpoints
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.ledger import Granted, Refused
from ctrainer.trainer.live_proof import LiveProof
from ctrainer.trainer.per_sample import PerSampleGradients, per_sample_gradients
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.state import Progress
from ctrainer.trainer.tokenization import EncodedExample

Reserve = Callable[[int, int], Granted | Refused | BudgetGranted | BudgetRefused]
"""Ask the ledger for a block: `(first_step, steps)`. It must not return a grant before the charge is durable."""


class TrainingEnd(StrEnum):
    """Why training ended: all steps done, the budget refused the next block, or it was asked to stop."""

    COMPLETED = "completed"
    HALTED = "halted"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutcome:
    """How training ended, after how many steps; `reason` and `message` say why the budget refused.

    `not_finite` counts how often a sample's gradient was not finite, and so counted as zero, since this process began.
    It is computed from private data without noise: for the operator only, never to be published.
    """

    end: TrainingEnd
    step: int
    reason: str | None = None
    message: str | None = None
    not_finite: int = 0


def train(
    *,
    model: Any,
    examples: Sequence[EncodedExample],
    pad_token_id: int,
    plan: PrivacyPlan,
    learning_rate: float,
    randomness: Randomness,
    reserve: Reserve,
    on_block: Callable[[int], None],
    should_stop: Callable[[], bool],
    checkpoints: Checkpoints,
    start: Checkpoint | None = None,
    block_steps: int = 8,
    computation: Computation | None = None,
) -> TrainingOutcome:
    """Train the adapter of `model` in place until the plan is done, the ledger refuses, or a stop is asked for.

    No noise of a block is drawn before its reservation is granted. A checkpoint is durable at the end of every block,
    and of the step at which it stops, before `on_block` is told. A seeded run that is resumed equals one that was not.

    Raises:
        UnsupportedAdapterError: a trainable weight has no per-sample gradients.
        NotTrainingError: the first steps with records did not move the adapter by signal and noise.
        OutOfMemoryError: not even one record at a time fits into memory.
        CorruptCheckpointError: `start` is not a checkpoint of this adapter.
        CheckpointNotSavedError: the disk is full, for example; the checkpoint before is as it was. A disk that is full
            before a block is found out before the block is reserved.
    """
    with per_sample_gradients(model) as gradients:
        step = PrivateStep(
            model=model,
            gradients=gradients,
            plan=plan,
            randomness=randomness,
            computation=computation or Computation.on(model.device),
            pad_token_id=pad_token_id,
        )
        session = _Session(
            examples=examples,
            step=step,
            progress=_progress(gradients, learning_rate, randomness),
            proof=LiveProof(factors=gradients.factors),
        )
        return session.run(
            reserve=reserve,
            on_block=on_block,
            should_stop=should_stop,
            checkpoints=checkpoints,
            start=start,
            block_steps=block_steps,
        )


def _progress(gradients: PerSampleGradients, learning_rate: float, randomness: Randomness) -> Progress:
    weights = {factor.name: factor.weight for factor in gradients.factors}
    optimizer = torch.optim.AdamW(weights.values(), lr=learning_rate, weight_decay=0.0, fused=True)
    return Progress(weights=weights, optimizer=optimizer, randomness=randomness)


@dataclass(slots=True, kw_only=True)
class _Session:
    """The moving parts of one call of `train`."""

    examples: Sequence[EncodedExample]
    step: PrivateStep
    progress: Progress
    proof: LiveProof
    not_finite: int = field(default=0, init=False)

    def run(
        self,
        *,
        reserve: Reserve,
        on_block: Callable[[int], None],
        should_stop: Callable[[], bool],
        checkpoints: Checkpoints,
        start: Checkpoint | None,
        block_steps: int,
    ) -> TrainingOutcome:
        """Reserve, run and save block after block."""
        done, steps = self._restore(start), self.step.plan.steps
        while done < steps:
            block = min(block_steps, steps - done)
            if should_stop():
                return self._outcome(TrainingEnd.STOPPED, done)
            checkpoints.ensure_room(self.progress.saved_bytes)
            answer = reserve(done, block)
            if isinstance(answer, Refused | BudgetRefused):
                return self._outcome(TrainingEnd.HALTED, done, reason=answer.reason, message=answer.message)
            done = self._run_block(done, done + block, should_stop)
            checkpoints.save(done, self.progress.saved(done))
            on_block(done)
        self.proof.at_end()
        return self._outcome(TrainingEnd.COMPLETED, done)

    def _restore(self, start: Checkpoint | None) -> int:
        """Go back to a checkpoint, if there is one, and return the number of steps done."""
        if start is None:
            return 0
        self.progress.restore(start)
        return start.step

    def _run_block(self, first: int, end: int, should_stop: Callable[[], bool]) -> int:
        """Run the granted steps `[first, end)`, or fewer when asked to stop; return the number of steps done."""
        for step in range(first, end):
            if step > first and should_stop():
                return step
            self._run_step()
        return end

    def _run_step(self) -> None:
        step = self.step
        members = step.randomness.poisson_sample(len(self.examples), step.plan.sampling_rate)
        signal = step.signal([self.examples[index] for index in members])
        noise = step.noise()
        step.set_gradient(signal.totals, noise)
        before = self.proof.before()
        self.progress.optimizer.step()
        self.progress.optimizer.zero_grad(set_to_none=True)
        self.not_finite += signal.not_finite
        if members:
            self.proof.check(before, signal=signal.totals, noise=noise)

    def _outcome(
        self, end: TrainingEnd, step: int, *, reason: str | None = None, message: str | None = None
    ) -> TrainingOutcome:
        return TrainingOutcome(end=end, step=step, reason=reason, message=message, not_finite=self.not_finite)
