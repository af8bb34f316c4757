"""Training on the wire: commands, the desired state of sessions, and their progress."""

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import SelectionRules
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.message import Message, describe_faults, short
from ctrainer.schemas.privacy import (
    Adjacency,
    Mechanism,
    NoGuarantee,
    NoMechanism,
    PrivacyGuarantee,
    PrivacyMode,
    PrivacyUnit,
)

MAX_ACTIVE_SESSIONS = 5

WAITING_FOR_MEMORY = "waiting-for-memory"
"""Why a session that has a trainer is only `assigned`: it starts when there is room for it."""

Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^/\x00-\x1f]+$")]

Reference = Annotated[str, Field(min_length=1, max_length=256)]
"""An id that somebody was given before."""


class Objective(StrEnum):
    """What the adapter learns: assistant turns (SFT) or the whole text (domain-adaptive pretraining)."""

    SFT = "sft"
    DAPT = "dapt"


class LoraSettings(Message):
    """The shape of the low-rank adapter (Hu et al. 2021)."""

    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1)
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class PrivacySettings(Message):
    """What the requester asks of the budget. Values over the ceilings are refused with an event, not by the schema.

    With unit user, `whole_users` draws users instead of records and clips one gradient for each of them; without it a
    dataset may have at most `records_per_user` records of a user (none means: as many as it was sealed with).
    `unsafe_non_private` trains without any privacy, and must be allowed by the deployment.
    """

    mode: PrivacyMode = PrivacyMode.SEALED_POISSON
    epsilon: float = Field(default=8.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    clip_norm: float = Field(default=1.0, gt=0)
    unit: PrivacyUnit = PrivacyUnit.RECORD
    adjacency: Adjacency = Adjacency.ADD_REMOVE
    records_per_user: int | None = Field(default=None, ge=1)
    whole_users: bool = False
    population: Name = "default"
    unsafe_seed: int | None = None
    unsafe_non_private: bool = False


class OptimizerSettings(Message):
    """How long and how fast the session trains; `expected_batch_size` is the mean of the Poisson draw."""

    steps: int = Field(default=40, ge=1, le=1_000_000)
    expected_batch_size: float = Field(default=6.0, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    max_tokens: int = Field(default=128, ge=8)


class SealDataset(Message):
    """Freeze what has been accepted so far for some workloads of a tenant.

    `accepted_since` (milliseconds since the epoch, by the samples' Kafka timestamps) leaves out what is older.
    """

    kind: Literal["SealDataset"] = "SealDataset"
    request_id: UUID
    tenant: Name
    workloads: tuple[Name, ...] = Field(min_length=1)
    constitution: ConstitutionReference
    accepted_since: int | None = Field(default=None, ge=0)
    rules: SelectionRules = SelectionRules()


class TrainAdapter(Message):
    """Fine-tune a LoRA adapter of `base_model` on a sealed dataset under differential privacy."""

    kind: Literal["TrainAdapter"] = "TrainAdapter"
    request_id: UUID
    tenant: Name
    dataset_id: Reference
    constitution: ConstitutionReference
    base_model: str = Field(default="SmolLM2-135M-Instruct", min_length=1, max_length=1_024)
    objective: Objective = Objective.SFT
    lora: LoraSettings = LoraSettings()
    privacy: PrivacySettings = PrivacySettings()
    optimizer: OptimizerSettings = OptimizerSettings()


class CancelTraining(Message):
    """Stop a session at its next step; what it spent stays spent."""

    kind: Literal["CancelTraining"] = "CancelTraining"
    request_id: UUID
    tenant: Name
    session_id: Reference
    constitution: ConstitutionReference


class PauseTraining(Message):
    """Let a session rest from its next step on: it keeps its checkpoints and gives up its place until it is resumed."""

    kind: Literal["PauseTraining"] = "PauseTraining"
    request_id: UUID
    tenant: Name
    session_id: Reference
    constitution: ConstitutionReference


class ResumeTraining(Message):
    """Let a paused session go on from the step at which it was, as soon as there is a place for it."""

    kind: Literal["ResumeTraining"] = "ResumeTraining"
    request_id: UUID
    tenant: Name
    session_id: Reference
    constitution: ConstitutionReference


class PromoteAdapter(Message):
    """Make an adapter the current one of a workload that its dataset is of; a canary that runs there ends."""

    kind: Literal["PromoteAdapter"] = "PromoteAdapter"
    request_id: UUID
    tenant: Name
    workload: Name
    adapter_id: Reference
    constitution: ConstitutionReference


class CanaryAdapter(Message):
    """Let an adapter answer a share of a workload's requests, beside the current one."""

    kind: Literal["CanaryAdapter"] = "CanaryAdapter"
    request_id: UUID
    tenant: Name
    workload: Name
    adapter_id: Reference
    share: float = Field(gt=0, lt=1)
    constitution: ConstitutionReference


class RollbackAdapter(Message):
    """End the canary of a workload; where none runs, return to the adapter before the current one."""

    kind: Literal["RollbackAdapter"] = "RollbackAdapter"
    request_id: UUID
    tenant: Name
    workload: Name
    constitution: ConstitutionReference


SessionCommand: TypeAlias = CancelTraining | PauseTraining | ResumeTraining
RegistryCommand: TypeAlias = PromoteAdapter | CanaryAdapter | RollbackAdapter
TrainingCommand: TypeAlias = SealDataset | TrainAdapter | SessionCommand | RegistryCommand
_COMMAND: TypeAdapter[TrainingCommand] = TypeAdapter(Annotated[TrainingCommand, Field(discriminator="kind")])


def read_command(value: bytes | None) -> TrainingCommand:
    """Read a command from JSON bytes.

    Raises:
        ContractError: `record-too-large`, or `invalid-message`, naming the fields at fault and never their content.
    """
    try:
        return _COMMAND.validate_json(short(value))
    except ValidationError as error:
        raise ContractError("invalid-message", f"training command: {describe_faults(error)}") from error


class Desired(StrEnum):
    """What the trainers shall bring about."""

    TRAINED = "trained"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class TrainingAssignment(Message):
    """The desired state of one session; the newest one of a session counts.

    `revision` counts the commands that changed it, so that a session that is paused twice at one step says so twice.
    `unsafe_unsigned` tells that nobody signed for the request: the deployment accepts such ones. A session without
    privacy has no mechanism, and its `epsilon_planned` is none.
    """

    session_id: str
    tenant: str
    desired: Desired
    request: TrainAdapter
    scope: str
    mechanism: Mechanism | NoMechanism
    steps: int
    epsilon_planned: float | None
    revision: int = Field(default=0, ge=0)
    unsafe_unsigned: bool = False


class SessionState(StrEnum):
    """Where a session is. The last six are final."""

    ASSIGNED = "assigned"
    STARTED = "started"
    TRAINING = "training"
    PAUSED = "paused"
    COMPLETED = "completed"
    HALTED = "halted"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REFUSED = "refused"
    REJECTED = "rejected"


FINAL_STATES = frozenset(
    {
        SessionState.COMPLETED,
        SessionState.HALTED,
        SessionState.CANCELLED,
        SessionState.FAILED,
        SessionState.REFUSED,
        SessionState.REJECTED,
    }
)


class SessionAdvanced(Message):
    """A session reached a state or a step. Carries nothing computed from private data without noise."""

    session_id: str
    tenant: str
    state: SessionState
    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    spent: PrivacyGuarantee | NoGuarantee | None = None
    reason: str | None = None
    message: str | None = None


class SessionProgressed(Message):
    """How far a session is while it trains, told at most once a second; `SessionAdvanced` tells every block.

    `seconds_left` is to the last step, at the speed of this process so far. Not audited, and never the only record of
    anything.
    """

    session_id: str
    tenant: str
    step: int = Field(ge=0)
    steps: int = Field(ge=0)
    spent: PrivacyGuarantee | NoGuarantee | None = None
    steps_per_second: float = Field(ge=0)
    seconds_left: float = Field(ge=0)


class SessionChecked(Message):
    """What a session's model answers to a few public probes during training, beside its base model without the adapter.

    `compliance` is the share of greedy answers that the constitution accepts, `distinct_2` that of pairs of words that
    are distinct. The model is private already at every step, so these numbers cost no epsilon.
    """

    session_id: str
    tenant: str
    step: int = Field(ge=0)
    prompts: int = Field(ge=1)
    compliance: float = Field(ge=0, le=1)
    base_compliance: float = Field(ge=0, le=1)
    distinct_2: float = Field(ge=0, le=1)
    base_distinct_2: float = Field(ge=0, le=1)
    probes_digest: str


class CommandRefused(Message):
    """A command was understood and will not be carried out. `acceptable` says what would be."""

    request_id: str
    session_id: str | None
    tenant: str
    command: str
    reason: str
    message: str
    acceptable: str
