"""A privacy plan: sampling, clipping, noise and number of steps, fixed together so that they cannot drift apart."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from ctrainer.schemas.privacy import HALT_SHARE, Adjacency, Mechanism, PrivacyMode, PrivacyUnit
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, most_steps, prv_epsilon
from ctrainer.trainer.plan_faults import Fault, PlanRequest, faults_of, largest_delta
from ctrainer.trainer.release_cost import release_rdp

__all__ = ["Fault", "NonPrivatePlan", "PrivacyPlan", "RecordOrder", "largest_delta", "make_plan"]

_PLANNED_SHARE = HALT_SHARE - 0.001
_LEAST_NOISE, _MOST_NOISE = 0.2, 1_000.0
_NOISE_PRECISION = 1e-4
_BANDS = 8
"""Of correlated noise: a process holds so many noise vectors of eight bytes a weight, less one."""


class RecordOrder(StrEnum):
    """What the trainer can do with its data: draw from all of it, or only take it as it arrives."""

    SEALED = "sealed"
    ARRIVAL = "arrival"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPlan:
    """A frozen plan of Gaussian steps; the accountant of the gate is RDP.

    `sampling_rate` is the share of the records in an expected batch: in Poisson steps the probability of each of them.
    In a single pass each record is in one batch, so that the `steps` compose in parallel: the pass costs one release
    without amplification, and `bands` is how many steps the noise of one is correlated with. A record's batch does not
    depend on the other records (`trainer/batches.py`).

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
    mode: PrivacyMode = PrivacyMode.SEALED_POISSON
    unit: PrivacyUnit = PrivacyUnit.RECORD
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    records_per_user: int = 1
    whole_users: bool = False
    bands: int = 1
    spare_steps: int = 0
    epsilon_with_spares: float | None = None
    epsilon_prv: float | None = None
    last_permitted_step: int | None = None

    def mechanism(self, *, unsafe_seeded_noise: bool = False) -> Mechanism:
        """Return what a ledger is told of the plan."""
        return Mechanism(
            mode=self.mode.value,
            sampling_rate=self.sampling_rate,
            noise_multiplier=self.noise_multiplier,
            clip_norm=self.clip_norm,
            expected_batch_size=self.expected_batch_size,
            unit=self.unit,
            adjacency=self.adjacency,
            records_per_user=self.records_per_user,
            whole_users=self.whole_users,
            bands=self.bands,
            unsafe_seeded_noise=unsafe_seeded_noise,
        )

    @property
    def releases(self) -> int:
        """How often the undisturbed plan is charged its release: each step, or once for a single pass."""
        return 1 if self.mode.is_single_pass else self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class NonPrivatePlan:
    """A plan without clipping and noise: Poisson batches as in a private one, and no promise at all."""

    sampling_rate: float
    expected_batch_size: float
    steps: int
    clip_norm: float = math.inf
    whole_users: bool = False


def make_plan(
    *,
    epsilon: float,
    delta: float,
    records: int,
    expected_batch_size: float,
    steps: int,
    clip_norm: float,
    mode: PrivacyMode = PrivacyMode.SEALED_POISSON,
    order: RecordOrder = RecordOrder.SEALED,
    unit: PrivacyUnit = PrivacyUnit.RECORD,
    adjacency: Adjacency = Adjacency.ADD_REMOVE,
    records_per_user: int = 1,
    whole_users: bool = False,
    spare_blocks: int = 2,
    block_steps: int = 8,
) -> PrivacyPlan | tuple[Fault, ...]:
    """Calibrate the noise so that all steps, and the spare ones, stay just below the 95 % at which the ledger halts.

    A crash forfeits at most two blocks: the one that runs, and the one that was reserved ahead.

    `records` counts what is drawn: records, or users with `whole_users` (one clipped gradient a user). With
    `records_per_user` k > 1 records are drawn one by one, and a user's k are hidden together. Returns every fault of
    the request at once instead, where there is one. Takes seconds on the first call.
    """
    request = PlanRequest(
        epsilon=epsilon,
        delta=delta,
        records=records,
        expected_batch_size=expected_batch_size,
        steps=steps,
        clip_norm=clip_norm,
        mode=mode,
        adjacency=adjacency,
        unit=unit,
        records_per_user=records_per_user,
        whole_users=whole_users,
        spare_blocks=spare_blocks,
        block_steps=block_steps,
    )
    faults = (*_wrong_order(mode, order), *faults_of(request))
    return faults or _calibrated(request)


def _calibrated(request: PlanRequest) -> PrivacyPlan | tuple[Fault, ...]:
    cost = _Cost(request)
    least = cost.epsilon(_MOST_NOISE, cost.releases + cost.spares) / _PLANNED_SHARE
    noise = _least_noise(cost, target=_PLANNED_SHARE * request.epsilon)
    if noise is None:
        return (_out_of_reach(request.epsilon, least=least),)
    return replace(
        _uncalibrated(request, noise),
        epsilon_planned=cost.epsilon(noise, cost.releases),
        spare_steps=cost.spares,
        epsilon_with_spares=cost.epsilon(noise, cost.releases + cost.spares),
        epsilon_prv=cost.prv(noise),
        last_permitted_step=cost.last_permitted_step(noise),
    )


def _uncalibrated(request: PlanRequest, noise: float) -> PrivacyPlan:
    """Return the plan of a request with some noise, and nothing yet of what it costs."""
    correlated = request.mode is PrivacyMode.SINGLE_PASS_CORRELATED
    return PrivacyPlan(
        noise_multiplier=noise,
        sampling_rate=request.expected_batch_size / request.records,
        expected_batch_size=request.expected_batch_size,
        clip_norm=request.clip_norm,
        steps=request.steps,
        delta=request.delta,
        epsilon_ceiling=request.epsilon,
        epsilon_planned=0.0,
        mode=request.mode,
        unit=request.unit,
        adjacency=request.adjacency,
        records_per_user=request.records_per_user,
        whole_users=request.whole_users,
        bands=min(_BANDS, request.steps) if correlated else 1,
    )


@dataclass(frozen=True, slots=True)
class _Cost:
    """What the plan of a request costs: `releases`, and `spares` more for blocks that are interrupted."""

    request: PlanRequest

    @property
    def releases(self) -> int:
        return 1 if self.request.mode.is_single_pass else self.request.steps

    @property
    def spares(self) -> int:
        # An interrupted block of a single pass is not run again: its records would be released twice.
        request = self.request
        return 0 if request.mode.is_single_pass else request.spare_blocks * min(request.block_steps, request.steps)

    def rdp(self, noise: float) -> tuple[float, ...]:
        return release_rdp(_uncalibrated(self.request, noise).mechanism())

    def epsilon(self, noise: float, releases: int) -> float:
        return epsilon_of(compose(NOTHING, self.rdp(noise), releases), self.request.delta)

    def prv(self, noise: float) -> float | None:
        request = self.request
        if request.records_per_user > 1:
            return None
        rate = 1.0 if request.mode.is_single_pass else request.expected_batch_size / request.records
        return prv_epsilon(sampling_rate=rate, noise_multiplier=noise, steps=self.releases, delta=request.delta)

    def last_permitted_step(self, noise: float) -> int:
        request = self.request
        if request.mode.is_single_pass:
            return request.steps
        return most_steps(NOTHING, self.rdp(noise), limit=HALT_SHARE * request.epsilon, delta=request.delta)


def _wrong_order(mode: PrivacyMode, order: RecordOrder) -> tuple[Fault, ...]:
    """Find Poisson sampling of data that only arrives: its amplification would be claimed and not be there."""
    if order is RecordOrder.SEALED or mode.is_single_pass:
        return ()
    message = f"mode: got {mode.value} for data in {order.value} order, expected sealed data, to draw from all of it"
    fitting = ", ".join(mode.value for mode in PrivacyMode if mode.is_single_pass)
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
