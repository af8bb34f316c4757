"""The live-training proof: weights really move, gradients are real, noise is there. No proof, no adapter."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctrainer.trainer.errors import NotTrainingError
from ctrainer.trainer.gradient_block import Factor

_PATIENCE = 3
"""Batches without any finite gradient before training counts as broken: one poisoned record must not end it."""


@dataclass(slots=True, kw_only=True)
class LiveProof:
    """Watches a session until one step with records has moved the adapter by signal and, where it is `noisy`, noise."""

    factors: Sequence[Factor]
    noisy: bool = True
    proven: bool = False
    silent_batches: int = 0

    def before(self) -> list[Tensor]:
        """Return the weights that any training at all moves, as they are; nothing once the proof is there."""
        return [] if self.proven else [weight.detach().clone() for weight in self._outer()]

    def check(self, before: Sequence[Tensor], *, signal: Sequence[Tensor], noise: Sequence[Tensor]) -> None:
        """Judge a step that had records.

        Raises:
            NotTrainingError: weights did not move, a weight got no noise, or no batch had a finite gradient so far.
        """
        if self.proven:
            return
        still = sum(torch.equal(weight, old) for weight, old in zip(self._outer(), before, strict=True))
        if still:
            raise NotTrainingError(f"{still} adapter weights did not move in the first step, expected all to move")
        if self.noisy and not all(bool(draw.any()) for draw in noise):
            raise NotTrainingError("a weight got no noise in the first step, expected noise on every weight")
        self.proven = any(bool(total.any()) for total in signal)
        self.silent_batches += not self.proven
        if self.silent_batches >= _PATIENCE:
            self._refuse()

    def at_end(self) -> None:
        """Judge a session that ends.

        Raises:
            NotTrainingError: it had batches with records, and none had a finite gradient.
        """
        if self.silent_batches and not self.proven:
            self._refuse()

    def _refuse(self) -> None:
        raise NotTrainingError("the first batches gave no finite gradient, expected one: check the base model")

    def _outer(self) -> list[nn.Parameter]:
        """Return the weights that start at zero."""
        return [factor.weight for factor in self.factors if factor.outer]
