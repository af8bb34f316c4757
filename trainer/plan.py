"""A privacy plan: sampling, clipping, noise and number of steps, fixed together so that they cannot drift apart."""

import math
from dataclasses import dataclass
from enum import StrEnum

from ctrainer.schemas.privacy import HALT_SHARE, Adjacency, PrivacyUnit
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, most_steps, prv_epsilon, rdp_of_step
from ctrainer.trainer.plan_faults import Fault, PlanRequest, faults_of, largest_delta

__all__ = ["Fault", "PlanMode", "PrivacyPlan", "RecordOrder", "largest_delta", "make_plan"]

_PLANNED_SHARE = HALT_SHARE - 0.001
_LEAST_NOISE, _MOST_NOISE = 0.2, 1_000.0
_NOISE_PRECISION = 1e-4


class PlanMode(StrEnum):
    """How records meet steps, and therefore what one record's presence costs."""

    SEALED_POISSON = "sealed-poisson"
    SINGLE_PASS = "single-pass"  # noqa: S105 - no password
    SINGLE_PASS_CORRELATED = "single-pass-correlated"  # noqa: S105 - as above


class RecordOrder(StrEnum):
    """What the trainer can do with its data: draw from all of it, or only take it as it arrives."""

    SEALED = "sealed"
    ARRIVAL = "arrival"


_ORDER_OF = {
    PlanMode.SEALED_POISSON: RecordOrder.SEALED,
    PlanMode.SINGLE_PASS: RecordOrder.ARRIVAL,
    PlanMode.SINGLE_PASS_CORRELATED: RecordOrder.ARRIVAL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """A frozen plan of Gaussian steps; the accountant of the gate is RDP.

    Poisson steps include each record with probability `sampling_rate`. In a single pass each record is in one batch, so
    that the `steps` compose in parallel: the pass costs one release at rate 1, without amplification. A single pass
    assumes that a record's batch does not depend on the other records (a slot drawn from its id, not its arrival rank).

    `epsilon_planned` is the spend of all `steps`, `epsilon_with_spares` that of `spare_steps` more, which a ledger
    charges when blocks are interrupted and run again; `last_permitted_step` is the last charged step below the halt.
    `epsilon_prv` is what the undisturbed plan is worth by privacy random variables; None where it was not computed.
    """

    noise_multiplier: float
    sampling_rate: float
    expected_batch_size: float
    clip_norm: float
    steps: int
    delta: float
    epsilon_ceiling: float
    epsilon_planned: float
    mode: PlanMode = PlanMode.SEALED_POISSON
    unit: PrivacyUnit = PrivacyUnit.RECORD
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    records_per_user: int = 1
    spare_steps: int = 0
    epsilon_with_spares: float | None = None
    epsilon_prv: float | None = None
    last_permitted_step: int | None = None


def make_plan(
    *,
    epsilon: float,
    delta: float,
    records: int,
    expected_batch_size: float,
    steps: int,
    clip_norm: float,
    mode: PlanMode = PlanMode.SEALED_POISSON,
    order: RecordOrder = RecordOrder.SEALED,
    unit: PrivacyUnit = PrivacyUnit.RECORD,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    records_per_user: int = 1,
    spare_blocks: int = 2,
    block_steps: int = 8,
) -> PrivacyPlan | tuple[Fault, ...]:
    """Calibrate the noise so that all steps, and the spare ones, stay just below the 95 % at which the ledger halts.

    A crash forfeits at most two blocks: the one that runs, and the one that was reserved ahead.

    `records` counts what is sampled: records, or users where whole users are drawn (unit user, one clipped gradient a
    user: `records_per_user` 1). With `records_per_user` k > 1 records are drawn one by one, and a user's k are hidden
    together. Returns every fault of the request at once instead, where there is one. Takes seconds on the first call.
    """
    request = PlanRequest(
        epsilon=epsilon,
        delta=delta,
        records=records,
        expected_batch_size=expected_batch_size,
        steps=steps,
        clip_norm=clip_norm,
        disjoint=mode is not PlanMode.SEALED_POISSON,
        adjacency=adjacency,
        unit=unit,
        records_per_user=records_per_user,
        spare_blocks=spare_blocks,
        block_steps=block_steps,
    )
    faults = (*_wrong_order(mode, order), *faults_of(request))
    return faults or _calibrated(request, mode)


def _calibrated(request: PlanRequest, mode: PlanMode) -> PrivacyPlan | tuple[Fault, ...]:
    cost = _Cost.of(request)
    least = cost.epsilon(_MOST_NOISE, cost.releases + cost.spares) / _PLANNED_SHARE
    noise = _least_noise(cost, target=_PLANNED_SHARE * request.epsilon)
    if noise is None:
        return (_out_of_reach(request.epsilon, least=least),)
    limit = HALT_SHARE * request.epsilon
    return PrivacyPlan(
        noise_multiplier=noise,
        sampling_rate=cost.rate,
        expected_batch_size=request.expected_batch_size,
        clip_norm=request.clip_norm,
        steps=request.steps,
        delta=request.delta,
        epsilon_ceiling=request.epsilon,
        epsilon_planned=cost.epsilon(noise, cost.releases),
        mode=mode,
        unit=request.unit,
        adjacency=request.adjacency,
        records_per_user=request.records_per_user,
        spare_steps=cost.spares,
        epsilon_with_spares=cost.epsilon(noise, cost.releases + cost.spares),
        epsilon_prv=cost.prv(noise),
        last_permitted_step=(
            request.steps
            if request.disjoint
            else most_steps(NOTHING, cost.rdp(noise), limit=limit, delta=request.delta)
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """What one unit's presence costs: `releases` steps at `rate`, and `spares` more for interrupted blocks."""

    rate: float
    releases: int
    spares: int
    delta: float
    records_per_user: int

    @classmethod
    def of(cls, request: PlanRequest) -> "_Cost":
        disjoint = request.disjoint
        return cls(
            rate=1.0 if disjoint else request.expected_batch_size / request.records,
            releases=1 if disjoint else request.steps,
            # An interrupted batch of a single pass is not run again: its records would be in two.
            spares=0 if disjoint else request.spare_blocks * min(request.block_steps, request.steps),
            delta=request.delta,
            records_per_user=request.records_per_user,
        )

    def rdp(self, noise: float) -> tuple[float, ...]:
        if self.records_per_user == 1:
            return rdp_of_step(self.rate, noise)
        from ctrainer.trainer.user_accounting import user_rdp_of_step  # noqa: PLC0415 - pulls numpy

        return user_rdp_of_step(self.rate, noise, records_per_user=self.records_per_user)

    def epsilon(self, noise: float, steps: int) -> float:
        return epsilon_of(compose(NOTHING, self.rdp(noise), steps), self.delta)

    def prv(self, noise: float) -> float | None:
        if self.records_per_user > 1:
            return None
        return prv_epsilon(sampling_rate=self.rate, noise_multiplier=noise, steps=self.releases, delta=self.delta)


def _wrong_order(mode: PlanMode, order: RecordOrder) -> tuple[Fault, ...]:
    if _ORDER_OF[mode] is order:
        return ()
    message = f"mode: got {mode.value} for data in {order.value} order, expected data in {_ORDER_OF[mode].value} order"
    fitting = ", ".join(mode.value for mode, wanted in _ORDER_OF.items() if wanted is order)
    return (Fault(reason="mode-not-for-this-order", message=message, acceptable=fitting),)


def _out_of_reach(epsilon: float, *, least: float) -> Fault:
    message = (
        f"epsilon: got {epsilon:g}, expected at least {least:.4f} for this many records and steps; "
        "take more records, fewer steps or smaller batches"
    )
    return Fault(reason="epsilon-out-of-reach", message=message, acceptable=f"epsilon >= {least:.4f}")


def _least_noise(cost: _Cost, *, target: float) -> float | None:
    """Return the smallest noise multiplier that keeps the spend at or below `target`; None if there is none."""
    steps = cost.releases + cost.spares
    low = high = _LEAST_NOISE
    while not cost.epsilon(high, steps) <= target:
        if high >= _MOST_NOISE:
            return None
        low, high = high, min(2 * high, _MOST_NOISE)
    while high - low > _NOISE_PRECISION:
        middle = math.fsum((low, high)) / 2
        low, high = (low, middle) if cost.epsilon(middle, steps) <= target else (middle, high)
    return high
