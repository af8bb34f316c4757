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


class PrivacyMode(StrEnum):
    """How records meet steps, and therefore what one record's presence costs."""

    SEALED_POISSON = "sealed-poisson"
    SINGLE_PASS = "single-pass"  # noqa: S105 - no password
    SINGLE_PASS_CORRELATED = "single-pass-correlated"  # noqa: S105 - as above

    @property
    def is_single_pass(self) -> bool:
        """Whether each record is in one batch only."""
        return self is not PrivacyMode.SEALED_POISSON


class Accountant(StrEnum):
    """How epsilon is composed."""

    RDP = "rdp"
    PRV = "prv"


class PrivacyGuarantee(Message):
    """An epsilon is meaningless without everything that stands beside it here.

    `unsafe_non_private` tells that records of the scope were trained on without privacy as well: epsilon is then what
    the private sessions have spent, and nothing bounds what the others have told.
    """

    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)
    unit: PrivacyUnit
    adjacency: Adjacency
    accountant: Accountant
    unsafe_seeded_noise: bool = False
    unsafe_non_private: bool = False


class NoGuarantee(Message):
    """What training without privacy promises."""

    unsafe_non_private: Literal[True]
    guarantee: Literal["none"] = "none"


class Mechanism(Message):
    """How the Gaussian steps of a session are made.

    `mode` is a `PrivacyMode`; a ledger refuses one that it does not know. `sampling_rate` is the share of records (of
    users, where `whole_users` are drawn) that a batch is expected to have: it amplifies in sealed-poisson only.
    `records_per_user` is the most records that one user has in the dataset, where a user is hidden but records are
    drawn. `bands` is how many steps the noise of one is correlated with, itself included. `clip_norm`,
    `expected_batch_size` and `bands` do not change the cost; they are evidence.
    """

    mode: str = Field(default=PrivacyMode.SEALED_POISSON.value, pattern=r"^[a-z-]{1,64}$")
    sampling_rate: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(ge=0.1, le=1_000)
    clip_norm: float = Field(gt=0)
    expected_batch_size: float = Field(gt=0)
    unit: PrivacyUnit = PrivacyUnit.RECORD
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    records_per_user: int = Field(default=1, ge=1)
    whole_users: bool = False
    bands: int = Field(default=1, ge=1)
    unsafe_seeded_noise: bool = False


class NoMechanism(Message):
    """Training without clipping and noise, on Poisson batches: nothing of it is private."""

    unsafe_non_private: Literal[True]
    sampling_rate: float = Field(gt=0, le=1)
    expected_batch_size: float = Field(gt=0)


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


class DeclareNonPrivate(Message):
    """Tell the ledger that a session is about to train without privacy. Nothing is charged: no epsilon covers it."""

    kind: Literal["DeclareNonPrivate"] = "DeclareNonPrivate"
    reservation_id: str
    scope: str
    tenant: str
    session_id: str
    dataset_id: str
    steps: int = Field(ge=1)


LedgerRequest = Annotated[
    ReserveBudget | SettleBudget | ReportViolation | DeclareNonPrivate, Field(discriminator="kind")
]


class BudgetGranted(Message):
    """The reservation is charged.

    `rdp` is the scope's whole spend after it, one value per order of `trainer.accounting`. A `repeated` grant answers a
    request that was granted before: it charges nothing. `unsafe_non_private` is as in `PrivacyGuarantee`.
    """

    kind: Literal["BudgetGranted"] = "BudgetGranted"
    sequence: int
    request: ReserveBudget
    rdp: tuple[float, ...]
    epsilon: float
    alert: bool
    repeated: bool = False
    unsafe_non_private: bool = False


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


class NonPrivateDeclared(Message):
    """A session trains on records of the scope without privacy; every guarantee of the scope says so from now on."""

    kind: Literal["NonPrivateDeclared"] = "NonPrivateDeclared"
    sequence: int
    request: DeclareNonPrivate


LedgerEntry = Annotated[
    BudgetGranted | BudgetRefused | BudgetSettled | ViolationNoted | NonPrivateDeclared, Field(discriminator="kind")
]


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


class NonPrivateTrained(Message):
    """A session trains without privacy, as a request asked for and this deployment allows: an alarm for the audit."""

    scope: str
    tenant: str
    session_id: str
    dataset_id: str
    steps: int
    spent: NoGuarantee
