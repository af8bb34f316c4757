"""Epsilon from numbers: Renyi differential privacy of the Poisson-subsampled Gaussian mechanism.

The analysis is Opacus' (Mironov, Talwar, Zhang 2019, arXiv 1908.10530); the conversion to (epsilon, delta) is the one
of Balle et al. 2020 (arXiv 1905.09982, theorem 21), as in Opacus.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from ctrainer.schemas.errors import ConstitutionalTrainerError

ORDERS: tuple[float, ...] = (*(1 + x / 10 for x in range(1, 100)), *map(float, range(11, 64)), 128.0, 256.0, 512.0)
"""The Renyi orders every spend is kept at; Opacus' default ones and three larger."""

NOTHING: tuple[float, ...] = (0.0,) * len(ORDERS)
"""The spend of a scope that has spent nothing."""

_MANY_STEPS = 1_000_000_000
_OFFSETS = tuple(math.log1p(-1 / order) - math.log(order) / (order - 1) for order in ORDERS)


class AccountingError(ConstitutionalTrainerError):
    """The cost of a step cannot be computed; it must not run."""


@lru_cache(maxsize=1_024)
def rdp_of_step(sampling_rate: float, noise_multiplier: float) -> tuple[float, ...]:
    """Return the Renyi divergence of one step at each of `ORDERS`, in nats.

    The first call imports Opacus, and with it torch: seconds. Call it off the event loop.

    Raises:
        AccountingError: the analysis gives no number for these parameters; clamping would call the step free.
    """
    from opacus.accountants.analysis.rdp import compute_rdp  # noqa: PLC0415 - pulls torch, which workers may never need

    rdp = compute_rdp(q=sampling_rate, noise_multiplier=noise_multiplier, steps=1, orders=ORDERS)
    if any(math.isnan(value) for value in rdp):
        found = f"sampling rate {sampling_rate:g} and noise multiplier {noise_multiplier:g}"
        raise AccountingError(f"{found} have no computable cost; choose more noise or a rate within (0, 1]")
    # Rounding can give values a hair below zero; a spend must never shrink.
    return tuple(max(0.0, float(value)) for value in rdp)


def compose(spent: Sequence[float], step: Sequence[float], steps: int) -> tuple[float, ...]:
    """Return the spend after `steps` more steps: Renyi divergences add up."""
    return tuple(before + steps * once for before, once in zip(spent, step, strict=True))


def epsilon_of(rdp: Sequence[float], delta: float) -> float:
    """Return the epsilon that a spend is worth at `delta`.

    >>> epsilon_of(NOTHING, 1e-5)
    0.0
    >>> spends = [compose(NOTHING, rdp_of_step(256 / 10_000, noise), 117) for noise in (0.6, 0.8, 1.0)]
    >>> [round(epsilon_of(spend, 1e-5), 2) for spend in spends]
    [8.67, 4.07, 2.34]
    """
    if not any(rdp):
        return 0.0
    log_delta = math.log(delta)
    candidates = (
        value + offset - log_delta / (order - 1)
        for order, value, offset in zip(ORDERS, rdp, _OFFSETS, strict=True)
        if not math.isnan(value)
    )
    return max(0.0, min(candidates))


def prv_epsilon(*, sampling_rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """Return an upper bound on the epsilon of a schedule fixed in advance, by privacy random variables.

    Tighter than RDP, by at most 0.01 above the exact value (Gopi, Lee, Wutschitz 2021, arXiv 2106.02848). It must not
    gate adaptive requests: no privacy filter is proven for it.

    >>> schedule = {"sampling_rate": 256 / 10_000, "steps": 117, "delta": 1e-5}
    >>> [round(prv_epsilon(noise_multiplier=noise, **schedule), 2) for noise in (0.6, 0.8, 1.0)]
    [7.31, 3.38, 1.93]
    """
    import numpy as np  # noqa: PLC0415 - only whoever plans needs it
    from opacus.accountants import PRVAccountant  # noqa: PLC0415 - pulls torch, which workers may never need

    accountant = PRVAccountant()
    accountant.history = [(noise_multiplier, sampling_rate, steps)]
    with np.errstate(divide="ignore"):  # at rate 1 Opacus takes the log of zero, in a branch that it then drops
        return float(accountant.get_epsilon(delta))


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
