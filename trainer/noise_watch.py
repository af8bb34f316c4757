"""Judges the noise of a session while it trains: is it as wide as the plan says, on every weight, and new each step?

The squares of d independent normal numbers add up to a chi-square variable, whose tails are bounded for every d
(Laurent and Massart 2000, lemma 1): no approximation, so the stated probability of a false alarm holds.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_FIRST = 16
"""Numbers by which a draw is known again: two draws of doubles agree in them with probability far below 2**-400."""


@dataclass(slots=True, kw_only=True)
class NoiseWatch:
    """Watches at most `draws` draws of noise with standard deviation `scale`.

    With sound noise it ever raises an alarm with a probability of at most `false_alarm`.
    """

    scale: float
    draws: int
    false_alarm: float
    _squares: float = field(default=0.0, init=False)
    _numbers: int = field(default=0, init=False)
    _seen: set[bytes] = field(default_factory=set, init=False)

    def fault(self, draw: Sequence[Tensor]) -> str | None:
        """Return what is wrong with the noise of a step, one flat float64 tensor for each block; None if nothing is.

        Each block is judged by itself, and all numbers drawn so far together: a block without noise shows at once,
        noise that is a little too small shows in time.
        """
        squares = [float(square) for square in torch.stack([torch.dot(block, block) for block in draw]).cpu()]
        self._squares += sum(squares)
        self._numbers += sum(len(block) for block in draw)
        # Each step has one judgement for each block and one for the whole.
        share = self.false_alarm / (self.draws * (len(draw) + 1))
        blocks = all(self._fits(found, len(block), share) for found, block in zip(squares, draw, strict=True))
        if not blocks or not self._fits(self._squares, self._numbers, share):
            return "its variance is not that of the plan"
        return "it was drawn before" if self._repeats(draw) else None

    def _fits(self, squares: float, numbers: int, probability: float) -> bool:
        low, high = chi_square_bounds(numbers, probability)
        variance = self.scale**2
        return low * variance <= squares <= high * variance

    def _repeats(self, draw: Sequence[Tensor]) -> bool:
        first = draw[0][:_FIRST].cpu().numpy().tobytes()
        known = hashlib.sha256(first).digest()[:16]
        repeated = known in self._seen
        self._seen.add(known)
        return repeated


def chi_square_bounds(freedom: int, probability: float) -> tuple[float, float]:
    """Return bounds that a chi-square variable leaves with at most this probability.

    >>> low, high = chi_square_bounds(10_000, 1e-12)
    >>> f"{low / 10_000:.3f} {high / 10_000:.3f}"
    '0.894 1.112'
    """
    tail = math.log(2 / probability)
    width = 2 * math.sqrt(freedom * tail)
    return freedom - width, freedom + width + 2 * tail
