"""Private training: batches, clipping, Gaussian noise, AdamW, and epsilon reserved before it is spent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import torch

from ctrainer.schemas.privacy import BudgetGranted, BudgetRefused, NonPrivateDeclared, PrivacyMode
from ctrainer.trainer.batches import Unit, batches_of, one_each
from ctrainer.trainer.checkpoint import Checkpoint, Checkpoints
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.errors import NotTrainingError
from ctrainer.trainer.ledger import Granted, Refused
from ctrainer.trainer.live_proof import LiveProof
from ctrainer.trainer.noise_thread import noise_thread
from ctrainer.trainer.pace import Pace
from ctrainer.trainer.per_sample import PerSampleGradients, per_sample_gradients
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan
from ctrainer.trainer.plan_watch import PlanWatch, StepWatch, Unwatched
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.ranks import OneRank, Ranks
from ctrainer.trainer.reservations import Reservations, Reserve
from ctrainer.trainer.state import Progress
from ctrainer.trainer.tokenization import EncodedExample
from ctrainer.trainer.watched_step import WatchedStep


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
    plan: PrivacyPlan | NonPrivatePlan,
    learning_rate: float,
    randomness: Randomness,
    reserve: Reserve,
    on_block: Callable[[int], None],
    should_stop: Callable[[], bool],
    checkpoints: Checkpoints,
    start: Checkpoint | None = None,
    block_steps: int = 8,
    computation: Computation | None = None,
    ranks: Ranks | None = None,
    units: Sequence[Unit] | None = None,
    granted_before: int = 0,
    on_step: Callable[[int], None] = lambda _: None,
) -> TrainingOutcome:
    """Train the adapter of `model` in place until the plan is done, the ledger refuses, or a stop is asked for.

    No noise of a block is drawn before its reservation is granted; the next block is asked for while one runs, on
    another thread. A checkpoint is durable at the end of every block, and of the step at which it stops, before
    `on_block` is told. A seeded run that is resumed equals one that was not.
    Of several `ranks` only the leader reserves, adds noise, saves, and goes by its `start` and `should_stop`; all end
    with the same adapter, the one that a single rank would have trained, up to the order of sums.

    `units` are what batches are made of: each example, unless said otherwise. In a single pass the steps below
    `granted_before`, which former processes may have released, are passed over: no record is released twice.

    Raises:
        ValueError: a single pass, or whole users, without `units`.
        UnsupportedAdapterError: a trainable weight has no per-sample gradients.
        NotTrainingError: the first steps with records did not move the adapter by signal and noise.
        PlanViolatedError: a step was not what the plan and the grants say; the steps after it were not begun.
        OutOfMemoryError: not even one record at a time fits into memory.
        CorruptCheckpointError: `start` is not a checkpoint of this adapter.
        CheckpointNotSavedError: the disk is full, for example; the checkpoint before is as it was. A disk that is full
            before a block is found out before the block is reserved.
    """
    units = _units(plan, units, len(examples))
    with per_sample_gradients(model) as gradients, noise_thread(model.device) as thread:
        step = PrivateStep(
            model=model,
            gradients=gradients,
            plan=plan,
            randomness=randomness,
            computation=computation or Computation.on(model.device),
            pad_token_id=pad_token_id,
        )
        progress = _progress(gradients, learning_rate, step)
        watched = WatchedStep(
            examples=examples,
            units=units,
            batches=batches_of(_mode(plan), units, rate=plan.sampling_rate, randomness=randomness),
            step=step,
            optimizer=progress.optimizer,
            proof=LiveProof(factors=gradients.factors, noisy=isinstance(plan, PrivacyPlan)),
            watch=_watch(plan, len(units)),
            ranks=ranks or OneRank(),
            noise_thread=thread,
        )
        session = _Session(watched=watched, progress=progress, on_step=on_step)
        with Reservations(reserve, ensure_room=session.room_in(checkpoints)) as reservations:
            return session.run(
                reservations=reservations,
                on_block=on_block,
                should_stop=should_stop,
                checkpoints=checkpoints,
                start=start,
                block_steps=block_steps,
                granted_before=granted_before if _is_single_pass(plan) else 0,
            )


def _mode(plan: PrivacyPlan | NonPrivatePlan) -> PrivacyMode | None:
    return plan.mode if isinstance(plan, PrivacyPlan) else None


def _watch(plan: PrivacyPlan | NonPrivatePlan, units: int) -> StepWatch:
    return PlanWatch(plan=plan, records=units) if isinstance(plan, PrivacyPlan) else Unwatched()


def _is_single_pass(plan: PrivacyPlan | NonPrivatePlan) -> bool:
    return isinstance(plan, PrivacyPlan) and plan.mode.is_single_pass


def _units(plan: PrivacyPlan | NonPrivatePlan, units: Sequence[Unit] | None, examples: int) -> Sequence[Unit]:
    if units is not None:
        return units
    if _is_single_pass(plan) or plan.whole_users:
        raise ValueError("units: got none, expected the identities that a single pass, or a draw of users, goes by")
    return one_each(examples)


def _progress(gradients: PerSampleGradients, learning_rate: float, step: PrivateStep) -> Progress:
    weights = {factor.name: factor.weight for factor in gradients.factors}
    optimizer = torch.optim.AdamW(weights.values(), lr=learning_rate, weight_decay=0.0, fused=True)
    return Progress(weights=weights, optimizer=optimizer, randomness=step.randomness, noises=step.noises)


@dataclass(slots=True, kw_only=True)
class _Session:
    """The moving parts of one call of `train`."""

    watched: WatchedStep
    progress: Progress
    on_step: Callable[[int], None]
    pace: Pace = field(default_factory=Pace, init=False)
    not_finite: int = field(default=0, init=False)

    @property
    def ranks(self) -> Ranks:
        """Who takes part."""
        return self.watched.ranks

    @property
    def watch(self) -> StepWatch:
        """Who judges."""
        return self.watched.watch

    @property
    def plan(self) -> PrivacyPlan | NonPrivatePlan:
        """What is to be done."""
        return self.watched.step.plan

    def run(
        self,
        *,
        reservations: Reservations,
        on_block: Callable[[int], None],
        should_stop: Callable[[], bool],
        checkpoints: Checkpoints,
        start: Checkpoint | None,
        block_steps: int,
        granted_before: int,
    ) -> TrainingOutcome:
        """Reserve, run and save block after block."""
        done, steps = self._pass_over(self._restore(start), granted_before), self.plan.steps
        while done < steps:
            end = min(done + block_steps, steps)
            if self.ranks.decide(should_stop):
                return self._outcome(TrainingEnd.STOPPED, done)
            answer = self.ranks.decide(partial(reservations.take, done, end - done))
            if isinstance(answer, Refused | BudgetRefused):
                return self._outcome(TrainingEnd.HALTED, done, reason=answer.reason, message=answer.message)
            self._note_grant(answer, done, end - done)
            coming = min(block_steps, steps - end)
            ask_ahead = partial(reservations.ask_ahead, end, coming) if coming and self.ranks.leads else None
            done = self._run_block(done, end, should_stop, ask_ahead)
            if self.ranks.leads:
                checkpoints.save(done, self.progress.saved(done, last=done == steps))
                on_block(done)
        if self.ranks.leads and self.progress.noises.drawn():
            checkpoints.drop_older()
        self.watched.proof.at_end()
        return self._outcome(TrainingEnd.COMPLETED, done)

    def _restore(self, start: Checkpoint | None) -> int:
        """Go back to a checkpoint, if there is one, and return the number of steps done."""
        start = self.ranks.decide(lambda: start)
        if start is None:
            self.ranks.follow(weight.data for weight in self.progress.weights.values())
            return 0
        self.progress.restore(start)
        return start.step

    def _pass_over(self, done: int, granted_before: int) -> int:
        """Return the step to go on at: beyond what former processes may have released after the last checkpoint.

        Raises:
            NotTrainingError: they may have released every step, and left no checkpoint.
        """
        granted_before = min(self.ranks.decide(lambda: granted_before), self.plan.steps)
        if granted_before <= done:
            return done
        if done == 0 and granted_before == self.plan.steps:
            raise NotTrainingError("every step of the pass was granted before, and no checkpoint is left")
        # Noise that went on would take back noise that nobody saw released.
        self.progress.noises.go_on([])
        return granted_before

    def room_in(self, checkpoints: Checkpoints) -> Callable[[], None]:
        """Return what makes sure that the next checkpoint fits."""
        return lambda: checkpoints.ensure_room(self.progress.saved_bytes)

    def _note_grant(self, answer: Granted | BudgetGranted | NonPrivateDeclared, first: int, steps: int) -> None:
        """Tell the watch what was granted: by the ledger's own words, where it says which steps."""
        if isinstance(answer, BudgetGranted):
            request = answer.request
            self.watch.granted(request.first_step, request.steps, request.mechanism)
        else:
            self.watch.granted(first, steps, None)

    def _run_block(
        self, first: int, end: int, should_stop: Callable[[], bool], ask_ahead: Callable[..., None] | None
    ) -> int:
        """Run the granted steps `[first, end)`, or fewer when asked to stop; return the number of steps done."""
        for step in range(first, end):
            if step > first and self.ranks.decide(should_stop):
                return step
            self.watch.begins(step)
            if ask_ahead is not None:
                ask_ahead(seconds_left=self.pace.seconds(end - 1 - step))
            with self.pace.step():
                self.not_finite += self.watched.run(step)
            if self.ranks.leads:
                self.on_step(step + 1)
        return end

    def _outcome(
        self, end: TrainingEnd, step: int, *, reason: str | None = None, message: str | None = None
    ) -> TrainingOutcome:
        return TrainingOutcome(end=end, step=step, reason=reason, message=message, not_finite=self.not_finite)
