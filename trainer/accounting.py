"""Epsilon from numbers: Renyi differential privacy of the Poisson-subsampled Gaussian mechanism.

The analysis is Opacus' (Mironov, Talwar, Zhang 2019, arXiv 1908.10530); the conversion to (epsilon, delta) is the one
of Balle et al. 2020 (arXiv 1905.09982, theorem 21), as in Opacus.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

ORDERS: tuple[float, ...] = (*(1 + x / 10 for x in range(1, 100)), *map(float, range(11, 64)), 128.0, 256.0, 512.0)
"""The Renyi orders every spend is kept at; Opacus' default ones and three larger."""

NOTHING: tuple[float, ...] = (0.0,) * len(ORDERS)
"""The spend of a scope that has spent nothing."""

_MANY_STEPS = 1_000_000_000


@lru_cache(maxsize=1_024)
def rdp_of_step(sampling_rate: float, noise_multiplier: float) -> tuple[float, ...]:
    """Return the Renyi divergence of one step at each of `ORDERS`, in nats.

    The first call imports Opacus, and with it torch: seconds. Call it off the event loop.
    """
    from opacus.accountants.analysis.rdp import compute_rdp  # noqa: PLC0415 - pulls torch, which workers may never need

    rdp = compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=ORDERS)
    # Rounding can give values a hair below zero; a spend must never shrink.
    return tuple(max(0.0, float(value)) for value in rdp)


def compose(spent: Sequence[float], step: Sequence[float], steps: int) -> tuple[float, ...]:
    """Return the spend after `steps` more steps: Renyi divergences add up."""
    return tuple(before + steps * once for before, once in zip(spent, step, strict=True))


def epsilon_of(rdp: Sequence[float], delta: float) -> float:
    """Return the epsilon that a spend is worth at `delta`.

    >>> epsilon_of(NOTHING, 1e-5)
    0.0
    >>> round(epsilon_of(compose(NOTHING, rdp_of_step(256 / 10_000, 0.8), 117), 1e-5), 2)
    4.07
    """
    if not any(rdp):
        return 0.0
    candidates = (
        value + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
        for order, value in zip(ORDERS, rdp, strict=True)
        if not math.isnan(value)
    )
    return max(0.0, min(candidates))


def most_steps(spent: Sequence[float], step: Sequence[float], *, limit: float, delta: float) -> int:
    """Return how many more steps keep epsilon at or below `limit`; at most about a billion."""
    low, high = 0, 1
    while high < _MANY_STEPS and epsilon_of(compose(spent, step, high), delta) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = epsilon_of(compose(spent, step, middle), delta) <= limit
        low, high = (middle, high) if fits else (low, middle)
    return low
