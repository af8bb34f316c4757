"""An empirical audit: canaries that one run includes by coin flips, and what its noisy gradients tell about the coins.

The lower bound proves leakage; it never proves safety. A bound above the claimed epsilon means that there is a bug.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

_NORMAL = NormalDist()
_CONFIDENCE = 0.999
_MOST_EPSILON = 100.0
_SENSITIVITY_MARGIN = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryAudit:
    """The outcome: epsilons at `delta`, and the largest change one record made, in clip norms.

    `one_run` assumes nothing about the noise; `gaussian` assumes that scores are Gaussian and is far tighter.
    """

    claimed: float
    one_run: float
    gaussian: float
    delta: float
    canaries: int
    sensitivity: float

    @property
    def passed(self) -> bool:
        """Whether nothing contradicts the claim."""
        proven = max(self.one_run, self.gaussian)
        return proven <= self.claimed and self.sensitivity <= 1 + _SENSITIVITY_MARGIN


def one_run_epsilon(scores: Sequence[float], included: Sequence[bool], *, delta: float) -> float:
    """Return the largest epsilon that the guesses refute with 99.9 % confidence; 0 where they refute none.

    The quarter of canaries with the highest scores is guessed to be in, that with the lowest to be out (Steinke, Nasr,
    Jagielski 2023, arXiv 2305.08846, theorem 5.2). Guesses must not be chosen after looking at `included`.
    """
    ranked = [present for _, present in sorted(zip(scores, included, strict=True))]
    quarter = len(ranked) // 4
    correct = sum(ranked[len(ranked) - quarter :]) + quarter - sum(ranked[:quarter])
    low, high = 0.0, _MOST_EPSILON
    while high - low > 1e-3:  # noqa: PLR2004 - nats; finer than anyone reads it
        middle = (low + high) / 2
        refuted = guess_probability(correct, 2 * quarter, len(ranked), middle, delta) < 1 - _CONFIDENCE
        low, high = (middle, high) if refuted else (low, middle)
    return low


def guess_probability(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """Return an upper bound on the probability that an (epsilon, delta)-private run allows so many correct guesses.

    >>> guess_probability(100, 100, 500, 3.4, 1e-5) < 0.05 < guess_probability(100, 100, 500, 3.6, 1e-5)
    True
    """
    right = 1 / (1 + math.exp(-epsilon))
    masses = [_binomial(guesses, hits, right) for hits in range(guesses + 1)]
    tail = math.fsum(masses[correct:])
    best = total = 0.0
    for distance in range(1, correct + 1):
        total += masses[correct - distance]
        best = max(best, total / distance)
    return min(1.0, tail + 2 * canaries * delta * best)


def gaussian_epsilon(scores: Sequence[float], included: Sequence[bool], *, delta: float) -> float:
    """Return a lower bound at 99.9 % confidence on epsilon, for scores that are Gaussian with a shift for membership.

    The shift in standard deviations is the mu of Gaussian differential privacy. Without any noise the bound is 100.
    """
    inside = [score for score, present in zip(scores, included, strict=True) if present]
    outside = [score for score, present in zip(scores, included, strict=True) if not present]
    pooled = (variance(inside) * (len(inside) - 1) + variance(outside) * (len(outside) - 1)) / (len(scores) - 2)
    shift = fmean(inside) - fmean(outside)
    if pooled <= (1e-6 * shift) ** 2:
        return _MOST_EPSILON if shift > 0 else 0.0
    separation = shift / math.sqrt(pooled)
    error = math.sqrt(1 / len(inside) + 1 / len(outside) + separation**2 / (2 * len(scores)))
    return epsilon_of_separation(separation - _NORMAL.inv_cdf(_CONFIDENCE) * error, delta=delta)


def epsilon_of_separation(separation: float, *, delta: float) -> float:
    """Return the epsilon of two Gaussians `separation` standard deviations apart (Balle, Wang 2018, arXiv 1805.06530).

    >>> round(epsilon_of_separation(1 / 0.6, delta=1e-5), 1)
    8.0
    """
    if separation <= 0:
        return 0.0
    low, high = 0.0, _MOST_EPSILON
    while high - low > 1e-4:  # noqa: PLR2004 - nats; finer than anyone reads it
        middle = (low + high) / 2
        exceeds = _gaussian_delta(middle, separation) > delta
        low, high = (middle, high) if exceeds else (low, middle)
    return high if high < _MOST_EPSILON - 1 else _MOST_EPSILON


def undercounted(charges: Sequence[tuple[Sequence[float], int]], spent: Sequence[float]) -> bool:
    """Return whether a ledger's spend is below what its grants add up to: a refund, wherever it came from.

    Each charge is the Renyi divergence of a step and the number of granted steps.
    """
    totals = [math.fsum(step[order] * steps for step, steps in charges) for order in range(len(spent))]
    return any(have < total * (1 - 1e-9) for have, total in zip(spent, totals, strict=True))


def _gaussian_delta(epsilon: float, separation: float) -> float:
    inside = _NORMAL.cdf(separation / 2 - epsilon / separation)
    outside = _NORMAL.cdf(-separation / 2 - epsilon / separation)
    return inside - (math.exp(epsilon) * outside if outside > 0 else 0.0)


def _binomial(trials: int, hits: int, probability: float) -> float:
    if probability >= 1:
        return float(hits == trials)
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return math.exp(ways + hits * math.log(probability) + (trials - hits) * math.log1p(-probability))
