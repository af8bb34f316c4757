"""The cost of a user with several records under Poisson sampling of records: a mixture of Gaussians.

A user with k records adds to a step the gradients of those drawn, Binomial(k, q) many, each of norm at most the clip
norm. The dominating pair is the mixture of N(i, sigma^2) with those weights against N(0, sigma^2) (Charles et al. 2024,
arXiv 2407.07737; Choquette-Choo et al. 2024, arXiv 2310.15526).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ctrainer.trainer.accounting import ORDERS

_POINTS_PER_SIGMA = 40
_TAIL_SIGMAS = 14.0
_MOST_POINTS = 400_000
_Array = NDArray[np.float64]


@lru_cache(maxsize=256)
def user_rdp_of_step(sampling_rate: float, noise_multiplier: float, *, records_per_user: int) -> tuple[float, ...]:
    """Return the Renyi divergence of one step at each of `ORDERS`, in nats: the larger of adding and removing a user.

    Computed by the trapezoid rule, which is exact to rounding for such smooth integrands. An order whose integrand
    reaches beyond the grid counts as if all records were drawn at every step: the divergence is quasi-convex, so that
    of a mixture is at most the largest of its parts, order * k^2 / (2 sigma^2). Every value is thus finite and an upper
    bound, and adds up with those of any other mechanism for the same users.
    """
    grid, without, with_user = _densities(sampling_rate, noise_multiplier, records_per_user)
    removing = [_divergence(order, with_user, without, grid) for order in ORDERS]
    adding = [_divergence(order, without, with_user, grid) for order in ORDERS]
    all_drawn = [order * (records_per_user / noise_multiplier) ** 2 / 2 for order in ORDERS]
    return tuple(min(max(sides), most) for *sides, most in zip(removing, adding, all_drawn, strict=True))


def _densities(rate: float, noise: float, count: int) -> tuple[_Array, _Array, _Array]:
    """Return a grid and the log densities of the sum without and with the user."""
    # The largest finite orders put their mass at order * count; beyond the grid they are given up.
    reach = _TAIL_SIGMAS * noise + 64.0 * count
    points = min(_MOST_POINTS, int(2 * reach / noise * _POINTS_PER_SIGMA))
    grid = np.linspace(-reach, reach, points)
    drawn = np.arange(count + 1)
    with np.errstate(divide="ignore"):
        weights = np.array([math.comb(count, i) * rate**i * (1 - rate) ** (count - i) for i in drawn])
        logs = np.log(weights)
    without = -0.5 * (grid / noise) ** 2
    shifted = (grid[None, :] * drawn[:, None] - 0.5 * drawn[:, None] ** 2) / noise**2 + logs[:, None]
    peak = shifted.max(0)
    return grid, without, without + peak + np.log(np.exp(shifted - peak).sum(0))


def _divergence(order: float, one: _Array, other: _Array, grid: _Array) -> float:
    """Return the divergence of `one` from `other`, given as log densities with the same missing factor."""
    exponents = order * one + (1 - order) * other
    peak = float(exponents.max())
    edge = max(float(exponents[0]), float(exponents[-1]))
    if edge > peak - 60.0:
        return math.inf
    width = float(grid[1] - grid[0])
    total = float(np.exp(exponents - peak).sum()) * width
    mass = float(np.exp(other).sum()) * width
    return max(0.0, (peak + math.log(total) - math.log(mass)) / (order - 1))
