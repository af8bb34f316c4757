"""A privacy plan: sampling, clipping, noise and number of steps, fixed together so that they cannot drift apart."""

import math
from dataclasses import dataclass

from ctrainer.schemas.privacy import HALT_SHARE, MAX_DELTA, MAX_EPSILON
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, rdp_of_step

FEWEST_RECORDS = 50
DELTA_EXPONENT = 1.1
_PLANNED_SHARE = HALT_SHARE - 0.001
_LEAST_NOISE, _MOST_NOISE = 0.2, 1_000.0
_NOISE_PRECISION = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """A frozen plan of Poisson-subsampled Gaussian steps.

    Unit is the record, adjacency is add-remove, the accountant is RDP. `epsilon_planned` is the spend of all `steps`.
    """

    noise_multiplier: float
    sampling_rate: float
    expected_batch_size: float
    clip_norm: float
    steps: int
    delta: float
    epsilon_ceiling: float
    epsilon_planned: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why no plan can be made: a code, a sentence with what was found, and what would be accepted."""

    reason: str
    message: str
    acceptable: str


def make_plan(
    *, epsilon: float, delta: float, records: int, expected_batch_size: float, steps: int, clip_norm: float
) -> PrivacyPlan | tuple[Fault, ...]:
    """Calibrate the noise so that all steps together stay just below the 95 % at which the ledger halts.

    Returns every fault of the request at once instead, where there is one. Takes seconds on the first call.
    """
    faults = _faults(epsilon=epsilon, delta=delta, records=records, expected_batch_size=expected_batch_size)
    if faults:
        return faults
    rate = expected_batch_size / records
    target = _PLANNED_SHARE * epsilon
    noise = _least_noise(rate=rate, steps=steps, delta=delta, target=target)
    if noise is None:
        return (_out_of_reach(epsilon, least=_spend(rate, _MOST_NOISE, steps, delta) / _PLANNED_SHARE),)
    return PrivacyPlan(
        noise_multiplier=noise,
        sampling_rate=rate,
        expected_batch_size=expected_batch_size,
        clip_norm=clip_norm,
        steps=steps,
        delta=delta,
        epsilon_ceiling=epsilon,
        epsilon_planned=_spend(rate, noise, steps, delta),
    )


def largest_delta(records: int) -> float:
    """Return the largest delta allowed for a dataset: 1e-5, and below 1/n^1.1.

    >>> largest_delta(400)
    1e-05
    """
    return min(MAX_DELTA, math.pow(records, -DELTA_EXPONENT))


def _faults(*, epsilon: float, delta: float, records: int, expected_batch_size: float) -> tuple[Fault, ...]:
    faults = []
    if epsilon > MAX_EPSILON:
        message = f"epsilon: got {epsilon:g}, expected at most {MAX_EPSILON:g}"
        faults.append(Fault(reason="epsilon-over-ceiling", message=message, acceptable=f"epsilon <= {MAX_EPSILON:g}"))
    if records < FEWEST_RECORDS:
        message = f"the dataset has {records} records to train on, expected at least {FEWEST_RECORDS}"
        faults.append(Fault(reason="too-few-records", message=message, acceptable=f">= {FEWEST_RECORDS} records"))
        return tuple(faults)
    if delta > largest_delta(records):
        allowed = largest_delta(records)
        message = f"delta: got {delta:g}, expected at most {allowed:g} for {records} records"
        faults.append(Fault(reason="delta-over-ceiling", message=message, acceptable=f"delta <= {allowed:g}"))
    if expected_batch_size > records:
        message = f"expected batch size: got {expected_batch_size:g}, the dataset has {records} records"
        faults.append(Fault(reason="batch-over-dataset", message=message, acceptable=f"a batch size <= {records}"))
    return tuple(faults)


def _out_of_reach(epsilon: float, *, least: float) -> Fault:
    message = f"epsilon: got {epsilon:g}, expected at least {least:.4f} for this many steps"
    return Fault(reason="epsilon-out-of-reach", message=message, acceptable=f"epsilon >= {least:.4f}")


def _least_noise(*, rate: float, steps: int, delta: float, target: float) -> float | None:
    """Return the smallest noise multiplier that keeps the spend at or below `target`; None if there is none."""
    low = high = _LEAST_NOISE
    while _spend(rate, high, steps, delta) > target:
        if high >= _MOST_NOISE:
            return None
        low, high = high, min(2 * high, _MOST_NOISE)
    while high - low > _NOISE_PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if _spend(rate, middle, steps, delta) > target else (low, middle)
    return high


def _spend(rate: float, noise: float, steps: int, delta: float) -> float:
    return epsilon_of(compose(NOTHING, rdp_of_step(rate, noise), steps), delta)
