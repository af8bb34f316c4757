"""The privacy budget on the wire: requests to the ledger, its entries, and the events drawn from them."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from ctrainer.schemas.message import Message

MAX_EPSILON = 8.0
MAX_DELTA = 1e-5
ALERT_SHARE = 0.90
HALT_SHARE = 0.95


class PrivacyUnit(StrEnum):
    """Whose presence the guarantee hides."""

    RECORD = "record"
    USER = "user"


class Adjacency(StrEnum):
    """Which two datasets count as neighbours."""

    ADD_REMOVE = "add-remove"
    REPLACE_ONE = "replace-one"


class Accountant(StrEnum):
    """How epsilon is composed."""

    RDP = "rdp"
    PRV = "prv"


class PrivacyGuarantee(Message):
    """An epsilon is meaningless without everything that stands beside it here."""

    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)
    unit: PrivacyUnit
    adjacency: Adjacency
    accountant: Accountant
    unsafe_seeded_noise: bool = False


class Mechanism(Message):
    """One Poisson-subsampled Gaussian step.

    `clip_norm` and `expected_batch_size` do not change its cost; they are evidence.
    """

    sampling_rate: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(ge=0.1, le=1_000)
    clip_norm: float = Field(gt=0)
    expected_batch_size: float = Field(gt=0)
    unit: PrivacyUnit = PrivacyUnit.RECORD
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    unsafe_seeded_noise: bool = False


class ReserveBudget(Message):
    """Ask the ledger to charge `steps` steps before any of their noise is drawn."""

    kind: Literal["ReserveBudget"] = "ReserveBudget"
    reservation_id: str
    scope: str
    tenant: str
    session_id: str
    first_step: int = Field(ge=0)
    steps: int = Field(ge=1)
    mechanism: Mechanism
    epsilon_ceiling: float = Field(gt=0, le=MAX_EPSILON)
    delta: float = Field(gt=0, le=MAX_DELTA)


class SettleBudget(Message):
    """Tell the ledger how many reserved steps really ran. Settling never refunds."""

    kind: Literal["SettleBudget"] = "SettleBudget"
    reservation_id: str
    scope: str
    tenant: str
    session_id: str
    steps_used: int = Field(ge=0)


class ReportViolation(Message):
    """Tell the ledger that a session broke its plan, as the session itself found: it gets no grant any more."""

    kind: Literal["ReportViolation"] = "ReportViolation"
    scope: str
    tenant: str
    session_id: str
    reason: str
    message: str


LedgerRequest = Annotated[ReserveBudget | SettleBudget | ReportViolation, Field(discriminator="kind")]


class BudgetGranted(Message):
    """The reservation is charged.

    `rdp` is the scope's whole spend after it, one value per order of `trainer.accounting`. A `repeated` grant answers a
    request that was granted before: it charges nothing.
    """

    kind: Literal["BudgetGranted"] = "BudgetGranted"
    sequence: int
    request: ReserveBudget
    rdp: tuple[float, ...]
    epsilon: float
    alert: bool
    repeated: bool = False


class BudgetRefused(Message):
    """The reservation is not charged and must not run. `acceptable_steps` would still be granted."""

    kind: Literal["BudgetRefused"] = "BudgetRefused"
    sequence: int
    request: ReserveBudget
    reason: str
    message: str
    epsilon: float
    acceptable_steps: int


class BudgetSettled(Message):
    """What was used of a grant, for the record: the charge stays."""

    kind: Literal["BudgetSettled"] = "BudgetSettled"
    sequence: int
    request: SettleBudget


class ViolationNoted(Message):
    """A session broke its plan, by its own report: from this entry on it is refused."""

    kind: Literal["ViolationNoted"] = "ViolationNoted"
    sequence: int
    request: ReportViolation


LedgerEntry = Annotated[BudgetGranted | BudgetRefused | BudgetSettled | ViolationNoted, Field(discriminator="kind")]


class LedgerRecord(Message):
    """One entry of the append-only ledger of a scope."""

    scope: str
    entry: LedgerEntry


class BudgetSpent(Message):
    """A reservation was charged to a scope."""

    scope: str
    tenant: str
    session_id: str
    reservation_id: str
    steps: int
    spent: PrivacyGuarantee
    ceiling: float


class BudgetAlerted(Message):
    """A scope has spent 90 % of its ceiling."""

    scope: str
    tenant: str
    session_id: str
    spent: PrivacyGuarantee
    ceiling: float
    share: float


class BudgetHalted(Message):
    """A reservation would have passed 95 % of the ceiling (or was wrong): it was refused and its session halts."""

    scope: str
    tenant: str
    session_id: str
    reservation_id: str
    reason: str
    message: str
    spent: PrivacyGuarantee
    ceiling: float
    acceptable_steps: int


class BudgetViolated(Message):
    """A session did what its grants or its plan do not cover, and was stopped: an alarm, not an ordinary outcome."""

    scope: str
    tenant: str
    session_id: str
    reason: str
    message: str
