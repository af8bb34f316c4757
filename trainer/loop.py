"""Private training: Poisson batches, per-sample clipping, Gaussian noise, AdamW, epsilon reserved before it is spent.

DP-SGD as in Abadi et al. 2016 (arXiv 1607.00133), for LoRA weights only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ctrainer.schemas.privacy import BudgetGranted, BudgetRefused
from ctrainer.trainer.checkpoint import Checkpoint, Checkpoints
from ctrainer.trainer.errors import NotTrainingError
from ctrainer.trainer.ledger import Granted, Refused
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.per_sample import PerSampleGradients
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.state import Progress
from ctrainer.trainer.tokenization import EncodedExample, collate

Reserve = Callable[[int, int], Granted | Refused | BudgetGranted | BudgetRefused]
"""Ask the ledger for a block: `(first_step, steps)`. It must not return a grant before the charge is durable."""


class TrainingEnd(StrEnum):
    """Why training ended: all steps done, the budget refused the next block, or it was asked to stop."""

    COMPLETED = "completed"
    HALTED = "halted"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOutcome:
    """How training ended, after how many steps; `reason` and `message` say why the budget refused."""

    end: TrainingEnd
    step: int
    reason: str | None = None
    message: str | None = None


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
    micro_batch: int = 6,
) -> TrainingOutcome:
    """Train the adapter of `model` in place until the plan is done, the ledger refuses, or a stop is asked for.

    No noise of a block is drawn before its reservation is granted. A checkpoint is durable at the end of every block,
    and of the step at which it stops, before `on_block` is told. A seeded run that is resumed equals one that was not.

    Raises:
        UnsupportedAdapterError: a trainable weight has no per-sample gradients.
        NotTrainingError: the first step with records did not move the adapter by signal and noise.
    """
    session = _Session(
        model=model,
        examples=examples,
        pad_token_id=pad_token_id,
        plan=plan,
        micro_batch=micro_batch,
        gradients=PerSampleGradients.attach(model),
        randomness=randomness,
        learning_rate=learning_rate,
    )
    step = session.restore(start)
    while step < plan.steps:
        block = min(block_steps, plan.steps - step)
        if should_stop():
            return TrainingOutcome(end=TrainingEnd.STOPPED, step=step)
        answer = reserve(step, block)
        if isinstance(answer, Refused | BudgetRefused):
            return TrainingOutcome(end=TrainingEnd.HALTED, step=step, reason=answer.reason, message=answer.message)
        step = session.run_block(step, step + block, should_stop)
        checkpoints.save(step, session.progress.saved(step))
        on_block(step)
    return TrainingOutcome(end=TrainingEnd.COMPLETED, step=step)


class _Session:
    """The moving parts of one call of `train`."""

    def __init__(
        self,
        *,
        model: Any,
        examples: Sequence[EncodedExample],
        pad_token_id: int,
        plan: PrivacyPlan,
        micro_batch: int,
        gradients: PerSampleGradients,
        randomness: Randomness,
        learning_rate: float,
    ) -> None:
        self.model = model
        self.examples = examples
        self.pad_token_id = pad_token_id
        self.plan = plan
        self.micro_batch = micro_batch
        self.gradients = gradients
        self.randomness = randomness
        self.proven = False
        weights = {parameter.name: parameter.weight for parameter in gradients.parameters}
        optimizer = torch.optim.AdamW(weights.values(), lr=learning_rate, weight_decay=0.0)
        self.progress = Progress(weights=weights, optimizer=optimizer, randomness=randomness)

    def restore(self, start: Checkpoint | None) -> int:
        """Go back to a checkpoint, if there is one, and return the number of steps done."""
        if start is None:
            return 0
        self.progress.restore(start)
        return start.step

    def run_block(self, first: int, end: int, should_stop: Callable[[], bool]) -> int:
        """Run the granted steps `[first, end)`, or fewer when asked to stop; return the number of steps done."""
        for step in range(first, end):
            if step > first and should_stop():
                return step
            self._step()
        return end

    def _step(self) -> None:
        members = self.randomness.poisson_sample(len(self.examples), self.plan.sampling_rate)
        signal = self._clipped_sum(members)
        noise = self._noise()
        for weight, total, draw in zip(self.progress.weights.values(), signal, noise, strict=True):
            # The expected batch size, never the realised one: that is private.
            weight.grad = (total + draw).div_(self.plan.expected_batch_size)
        before = {name: weight.detach().clone() for name, weight in self._outer().items()} if not self.proven else {}
        self.progress.optimizer.step()
        self.progress.optimizer.zero_grad(set_to_none=True)
        if members and not self.proven:
            self._prove(before, signal, noise)

    def _clipped_sum(self, members: Sequence[int]) -> list[Tensor]:
        """Return the sum over the members of their clipped gradients: zeros, and no forward pass, for no members."""
        sums = [torch.zeros_like(weight, dtype=torch.float32) for weight in self.progress.weights.values()]
        by_length = sorted(members, key=lambda index: len(self.examples[index].token_ids))
        for part in _even_parts(by_length, self.micro_batch):
            rows = [self.examples[index] for index in part]
            batch = collate(rows, pad_token_id=self.pad_token_id).to(self.model.device)
            torch.autograd.backward(sample_losses(self.model, batch).sum())
            for total, clipped in zip(sums, self.gradients.clipped_sum(self.plan.clip_norm), strict=True):
                total.add_(clipped)
        return sums

    def _noise(self) -> list[Tensor]:
        weights = list(self.progress.weights.values())
        scale = self.plan.noise_multiplier * self.plan.clip_norm
        flat = self.randomness.normal(sum(weight.numel() for weight in weights)).mul_(scale).float()
        parts = torch.split(flat, [weight.numel() for weight in weights])
        return [part.view_as(weight).to(weight.device) for part, weight in zip(parts, weights, strict=True)]

    def _outer(self) -> dict[str, Tensor]:
        """Return the weights that start at zero, so that any training at all moves them."""
        return {name: weight for name, weight in self.progress.weights.items() if ".lora_B." in name}

    def _prove(self, before: dict[str, Tensor], signal: Sequence[Tensor], noise: Sequence[Tensor]) -> None:
        still = [name for name, weight in self._outer().items() if torch.equal(weight, before[name])]
        if still:
            raise NotTrainingError(f"{len(still)} adapter weights did not move in the first step, expected all to move")
        if not any(bool(total.any()) for total in signal):
            raise NotTrainingError("the first batch gave no finite gradient, expected one: check the base model")
        if not all(bool(draw.any()) for draw in noise):
            raise NotTrainingError("a weight got no noise in the first step, expected noise on every weight")
        self.proven = True


def _even_parts(members: Sequence[int], most: int) -> list[Sequence[int]]:
    """Split members into the fewest parts of at most `most`, about equally large: small ones waste time."""
    count = -(-len(members) // most)
    bounds = [len(members) * part // max(count, 1) for part in range(count + 1)]
    return [members[first:end] for first, end in pairwise(bounds)]
