"""What is wrong with a request for a privacy plan, all of it at once."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ctrainer.schemas.privacy import MAX_DELTA, MAX_EPSILON, Adjacency, PrivacyMode, PrivacyUnit

FEWEST_RECORDS = 50
DELTA_EXPONENT = 1.1
MOST_RECORDS_PER_USER = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why no plan can be made: a code, a sentence with what was found, and what would be accepted."""

    reason: str
    message: str
    acceptable: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """Everything a plan is made from."""

    epsilon: float
    delta: float
    records: int
    expected_batch_size: float
    steps: int
    clip_norm: float
    mode: PrivacyMode
    adjacency: Adjacency
    unit: PrivacyUnit
    records_per_user: int
    whole_users: bool
    spare_blocks: int
    block_steps: int


def largest_delta(records: int) -> float:
    """Return the largest delta allowed for a dataset: 1e-5, and below 1/n^1.1.

    >>> largest_delta(400)
    1e-05
    """
    return min(MAX_DELTA, math.pow(records, -DELTA_EXPONENT))


def faults_of(request: PlanRequest) -> tuple[Fault, ...]:
    """Return every fault of a request; none means that noise can be calibrated for it."""
    return (*_wrong_numbers(request), *_over_ceilings(request), *_wrong_dataset(request), *_unaccounted(request))


def _wrong_numbers(request: PlanRequest) -> Iterator[Fault]:
    positive = {
        "epsilon": request.epsilon,
        "delta": request.delta,
        "expected batch size": request.expected_batch_size,
        "steps": request.steps,
        "clip norm": request.clip_norm,
        "records per user": request.records_per_user,
        "steps of a block": request.block_steps,
    }
    for name, value in positive.items():
        if not 0 < value < math.inf:
            message = f"{name}: got {value:g}, expected a finite number above 0"
            yield Fault(reason=f"{name.replace(' ', '-')}-not-positive", message=message, acceptable=f"{name} > 0")
    if request.spare_blocks < 0:
        message = f"spare blocks: got {request.spare_blocks}, expected at least 0"
        yield Fault(reason="spare-blocks-negative", message=message, acceptable="spare blocks >= 0")


def _over_ceilings(request: PlanRequest) -> Iterator[Fault]:
    if request.epsilon > MAX_EPSILON:
        message = f"epsilon: got {request.epsilon:g}, expected at most {MAX_EPSILON:g}"
        yield Fault(reason="epsilon-over-ceiling", message=message, acceptable=f"epsilon <= {MAX_EPSILON:g}")
    allowed = largest_delta(max(request.records, 1))
    if request.delta > allowed:
        message = f"delta: got {request.delta:g}, expected at most {allowed:g} for {request.records} records"
        yield Fault(reason="delta-over-ceiling", message=message, acceptable=f"delta <= {allowed:g}")


def _wrong_dataset(request: PlanRequest) -> Iterator[Fault]:
    records, batch = request.records, request.expected_batch_size
    if records <= 0:
        yield Fault(reason="empty-dataset", message="the dataset has no records", acceptable=f">= {FEWEST_RECORDS}")
    elif records < FEWEST_RECORDS:
        message = f"the dataset has {records} records to train on, expected at least {FEWEST_RECORDS}"
        yield Fault(reason="too-few-records", message=message, acceptable=f">= {FEWEST_RECORDS} records")
    elif batch > records:
        message = f"expected batch size: got {batch:g}, the dataset has {records} records"
        yield Fault(reason="batch-over-dataset", message=message, acceptable=f"a batch size <= {records}")
    elif request.mode.is_single_pass and batch * request.steps > records:
        message = f"a single pass of {request.steps} batches of {batch:g} needs more than the {records} records"
        yield Fault(reason="pass-over-dataset", message=message, acceptable=f"steps <= {int(records / batch)}")


def _unaccounted(request: PlanRequest) -> Iterator[Fault]:
    if request.adjacency is not Adjacency.ADD_REMOVE:
        message = f"adjacency: got {request.adjacency.value}, expected add-remove"
        yield Fault(reason="unsupported-adjacency", message=message, acceptable="adjacency add-remove")
    several = request.records_per_user > 1
    if (several or request.whole_users) and request.unit is not PrivacyUnit.USER:
        message = f"users: got unit {request.unit.value}, expected unit user"
        yield Fault(reason="unsupported-user-unit", message=message, acceptable="unit user")
    if several and (request.whole_users or request.mode.is_single_pass):
        message = "several records of a user are accounted for where records are drawn, and by Poisson sampling only"
        yield Fault(reason="unsupported-user-unit", message=message, acceptable="whole users, or mode sealed-poisson")
    if request.records_per_user > MOST_RECORDS_PER_USER:
        message = f"records per user: got {request.records_per_user}, expected at most {MOST_RECORDS_PER_USER}"
        yield Fault(reason="too-many-records-per-user", message=message, acceptable="a lower cap when sealing")
