"""One step of DP-SGD (Abadi et al. 2016, arXiv 1607.00133) on LoRA weights: clip each sample, sum, add noise."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ctrainer.trainer.computation import Computation
from ctrainer.trainer.errors import OutOfMemoryError
from ctrainer.trainer.length_buckets import length_buckets
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.micro_batch import MicroBatch
from ctrainer.trainer.noise import Noise, noise_of
from ctrainer.trainer.per_sample import ClippedSum, PerSampleGradients
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import EncodedExample, TokenBatch, collate

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class PrivateStep:
    """Turns a batch of records, or of users, into a noisy gradient.

    `micro_batch` shrinks when memory runs out, for good.
    """

    model: Any
    gradients: PerSampleGradients
    plan: PrivacyPlan | NonPrivatePlan
    randomness: Randomness
    computation: Computation
    pad_token_id: int
    micro_batch: MicroBatch = field(init=False)
    noises: Noise = field(init=False)

    def __post_init__(self) -> None:
        self.noises = noise_of(self.plan, self.gradients.blocks, self.randomness)
        self.micro_batch = self.computation.micro_batch
        self.computation.prepare(self.model)

    def signal(self, examples: Sequence[EncodedExample]) -> ClippedSum:
        """Return the sum over the examples of their clipped gradients: zeros, and no forward pass, for none.

        Raises:
            OutOfMemoryError: one example alone does not fit into memory.
        """
        return self._sum(examples, self.plan.clip_norm)

    def user_signal(self, users: Sequence[Sequence[EncodedExample]]) -> ClippedSum:
        """Return the sum over users of the mean gradient of their examples, clipped once for each user.

        Raises:
            OutOfMemoryError: one example alone does not fit into memory.
        """
        total = ClippedSum(totals=self.gradients.zeros(), not_finite=0)
        for examples in users:
            total = total.plus(self._sum(examples, math.inf).mean_clipped(len(examples), self.plan.clip_norm))
        return total

    def _sum(self, examples: Sequence[EncodedExample], clip_norm: float) -> ClippedSum:
        total = ClippedSum(totals=self.gradients.zeros(), not_finite=0)
        waiting = self._parts(examples)
        while waiting:
            part = waiting.pop()
            clipped = self._clipped(part, clip_norm)
            if clipped is None:
                waiting += self._parts(part)
            else:
                total = total.plus(clipped)
        return total

    def _parts(self, examples: Sequence[EncodedExample]) -> list[list[EncodedExample]]:
        """Return the examples in micro-batches, the longest first."""
        lengths = [len(example.token_ids) for example in examples]
        parts = length_buckets(lengths, most=self.micro_batch, pass_tokens=self.computation.pass_tokens)
        return [[examples[index] for index in part] for part in reversed(parts)]

    def noise(self) -> list[Tensor]:
        """Draw the noise of one step, once for the logical batch: a flat float64 tensor for each block."""
        return self.noises.next()

    def set_gradient(self, signal: Sequence[Tensor], noise: Sequence[Tensor]) -> None:
        """Give every weight its noisy mean gradient.

        Signal and noise meet in float64 and are rounded after. The divisor is the expected batch size, never the
        realised one, which is private.
        """
        flat = [
            (total.double() + draw).div_(self.plan.expected_batch_size).float()
            for total, draw in zip(signal, noise, strict=True)
        ]
        for factor, gradient in zip(self.gradients.factors, self.gradients.per_weight(flat), strict=True):
            factor.weight.grad = gradient.to(factor.weight.dtype)

    def noisy_sum(self, signal: Sequence[Tensor], noise: Sequence[Tensor]) -> list[Tensor]:
        """Return the sum of signal and noise, a flat tensor for each block."""
        return [total + draw.float() for total, draw in zip(signal, noise, strict=True)]

    def applied_gradient(self) -> list[Tensor]:
        """Return the gradients that the optimizer will take, one for each weight, in the order of the blocks."""
        return [factor.weight.grad for factor in self.gradients.factors if factor.weight.grad is not None]

    def clear_gradient(self) -> None:
        """Give every weight a gradient of zeros, to be overwritten."""
        for factor in self.gradients.factors:
            factor.weight.grad = torch.zeros_like(factor.weight)

    def _clipped(self, rows: Sequence[EncodedExample], clip_norm: float) -> ClippedSum | None:
        """Return the clipped sum of one micro-batch; None when memory ran out, and smaller ones may fit."""
        try:
            batch = collate(rows, pad_token_id=self.pad_token_id).to(self.model.device)
            return self.clipped_sum(batch, clip_norm=clip_norm)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                tokens = len(rows[0].token_ids)
                raise OutOfMemoryError(f"one record of {tokens} tokens does not fit into memory; {_ADVICE}") from error
        # Outside of the handler: the exception's frames would keep the failed pass's tensors.
        self._make_room(len(rows))
        return None

    def clipped_sum(self, batch: TokenBatch, *, clip_norm: float | None = None) -> ClippedSum:
        """Return the sum of the clipped gradients of one micro-batch: one forward and one backward pass.

        They are clipped to the plan's norm, unless another one is given.
        """
        with self.computation.precision(batch.token_ids.device):
            losses = sample_losses(self.model, batch)
        torch.autograd.backward(losses.sum())
        clip_norm = self.plan.clip_norm if clip_norm is None else clip_norm
        return self.gradients.clipped_sum(clip_norm, samples=len(batch.token_ids))

    def _make_room(self, failed: int) -> None:
        self.gradients.forget()
        self.micro_batch = self.micro_batch.halved(failed)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _LOG.warning("out of memory: micro-batches have at most %d records from now on", self.micro_batch.records)


_ADVICE = "lower max_tokens, choose gradient checkpointing or a smaller base model"
