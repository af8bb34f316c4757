"""Correlated noise for a single pass: a banded square-root factor of the prefix sums (DP-FTRL).

Noise that cancels itself in later steps leaves far less error in the sum of all gradients than independent noise of the
same privacy. The factor C is lower triangular Toeplitz with the first coefficients of (1 - x)^(-1/2) (Fichtenberger,
Henzinger, Upadhyay 2023, arXiv 2202.11205; banded: Kalinin, Lampert 2024, arXiv 2405.13763). Releasing C G + Z is a
Gaussian mechanism whose sensitivity is the norm of C's columns, as each record is in one batch; the noise of G is then
C^-1 Z, one step after another.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor


def square_root_coefficients(bands: int) -> tuple[float, ...]:
    """Return the first coefficients of (1 - x)^(-1/2).

    >>> square_root_coefficients(3)
    (1.0, 0.5, 0.375)
    """
    coefficients = [1.0]
    for place in range(1, bands):
        coefficients.append(coefficients[-1] * (2 * place - 1) / (2 * place))
    return tuple(coefficients)


def column_norm(coefficients: tuple[float, ...], *, steps: int) -> float:
    """Return the largest norm of a column of C: the sensitivity of one participation, in clip norms."""
    return math.sqrt(math.fsum(value**2 for value in coefficients[:steps]))


@dataclass(slots=True)
class MatrixNoise:
    """The noise of one step after another, in float64; keeps `bands` - 1 earlier ones.

    `draw` returns that many independent standard normal numbers. `scale` is noise multiplier times clip norm, as for
    independent noise: the sensitivity of C is added here. `newest` is what the last step drew anew. The history must be
    restored with the weights, and fresh noise be drawn for no step that was released.
    """

    bands: int
    steps: int
    scale: float
    draw: Callable[[], Tensor]
    history: list[Tensor] = field(default_factory=list)
    newest: Tensor = field(default_factory=lambda: torch.empty(0), init=False)

    def __post_init__(self) -> None:
        if not (1 <= self.bands <= self.steps and self.scale > 0):
            raise ValueError(f"got {self.bands} bands, {self.steps} steps and scale {self.scale:g}")

    def next(self) -> Tensor:
        """Return the noise of the next step: the next row of C^-1 Z."""
        coefficients = square_root_coefficients(self.bands)
        noise = self.newest = self.draw().double() * (self.scale * column_norm(coefficients, steps=self.steps))
        for coefficient, earlier in zip(coefficients[1:], self.history, strict=False):
            noise = noise - coefficient * earlier
        self.history = [noise, *self.history][: self.bands - 1]
        return noise


def prefix_error(*, bands: int, steps: int) -> float:
    """Return the root mean square error of all prefix sums, for a noise multiplier and clip norm of 1.

    >>> round(prefix_error(bands=1, steps=39), 2), round(prefix_error(bands=39, steps=39), 2)
    (4.47, 2.07)
    """
    impulse = iter([torch.ones(1), *[torch.zeros(1)] * (steps - 1)])
    noise = MatrixNoise(bands=bands, steps=steps, scale=1.0, draw=lambda: next(impulse))
    sums = np.cumsum([float(noise.next()) for _ in range(steps)])
    return float(np.sqrt(np.cumsum(sums**2).mean()))
