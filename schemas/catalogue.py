"""Which messages each topic carries, and how: the second half of the contract, beside the topic table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from pydantic import BaseModel

from ctrainer.schemas import topics
from ctrainer.schemas.adapters import AdapterPublished, AdapterRejected, AdapterReleased
from ctrainer.schemas.audit import AuditCheckpoint, AuditRecorded
from ctrainer.schemas.compliance import SampleJudged
from ctrainer.schemas.constitution import Constitution, ConstitutionInForce, ConstitutionUpdated
from ctrainer.schemas.datasets import DatasetSealed
from ctrainer.schemas.flywheel import FlywheelRecord
from ctrainer.schemas.preferences import PreferencePair
from ctrainer.schemas.privacy import (
    BudgetAlerted,
    BudgetHalted,
    BudgetSpent,
    BudgetViolated,
    DeclareNonPrivate,
    LedgerRecord,
    NonPrivateTrained,
    ReportViolation,
    ReserveBudget,
    SettleBudget,
)
from ctrainer.schemas.review import ReviewDecision
from ctrainer.schemas.revision import ResumeRevision, RevisionHalted, RevisionResumed
from ctrainer.schemas.samples import AcceptedSample, ParkedSample
from ctrainer.schemas.training import (
    CanaryAdapter,
    CancelTraining,
    CommandRefused,
    PauseTraining,
    PromoteAdapter,
    ResumeTraining,
    RollbackAdapter,
    SealDataset,
    SessionAdvanced,
    SessionChecked,
    SessionProgressed,
    TrainAdapter,
    TrainingAssignment,
)


class Mode(StrEnum):
    """How CloudEvents attributes travel: around the data in one JSON value, or as headers beside it."""

    STRUCTURED = "structured"
    BINARY = "binary"
    ORIGINAL = "original bytes"


@dataclass(frozen=True, slots=True)
class Content:
    """What one topic carries. `in_use` is false for a topic whose producer or consumer is not part of this version."""

    mode: Mode
    messages: tuple[type[BaseModel] | type[FlywheelRecord], ...] = ()
    in_use: bool = True


_COMMANDS = (
    SealDataset,
    TrainAdapter,
    CancelTraining,
    PauseTraining,
    ResumeTraining,
    PromoteAdapter,
    CanaryAdapter,
    RollbackAdapter,
)
_PROGRESS = (SessionAdvanced, SessionProgressed, SessionChecked, CommandRefused, AdapterRejected)

CATALOGUE: Mapping[str, Content] = MappingProxyType(
    {
        topics.FLYWHEEL_SAMPLES: Content(Mode.BINARY, (FlywheelRecord,)),
        topics.TRAINING_REQUESTS: Content(Mode.BINARY, _COMMANDS),
        topics.REVIEW_DECISIONS: Content(Mode.BINARY, (ReviewDecision, ResumeRevision)),
        topics.CONSTITUTION_UPDATES: Content(Mode.BINARY, (Constitution,)),
        topics.SAMPLES_ACCEPTED: Content(Mode.BINARY, (AcceptedSample,)),
        topics.SAMPLES_SLOW_LANE: Content(Mode.BINARY, (ParkedSample,)),
        topics.SAMPLES_PREFERENCES: Content(Mode.BINARY, (PreferencePair,)),
        topics.DATASETS_SEALED: Content(Mode.STRUCTURED, (DatasetSealed,)),
        topics.TRAINING_ASSIGNMENTS: Content(Mode.STRUCTURED, (TrainingAssignment,)),
        topics.TRAINING_PROGRESS: Content(Mode.STRUCTURED, _PROGRESS),
        topics.ADAPTERS_PUBLISHED: Content(Mode.STRUCTURED, (AdapterPublished, AdapterReleased)),
        topics.PRIVACY_REQUESTS: Content(
            Mode.BINARY, (ReserveBudget, SettleBudget, ReportViolation, DeclareNonPrivate)
        ),
        topics.PRIVACY_LEDGER: Content(Mode.STRUCTURED, (LedgerRecord,)),
        topics.COMPLIANCE_EVENTS: Content(Mode.STRUCTURED, (SampleJudged,)),
        topics.CONSTITUTION_EVENTS: Content(
            Mode.STRUCTURED, (ConstitutionUpdated, ConstitutionInForce, RevisionHalted, RevisionResumed)
        ),
        topics.PRIVACY_EVENTS: Content(
            Mode.STRUCTURED, (BudgetSpent, BudgetAlerted, BudgetHalted, BudgetViolated, NonPrivateTrained)
        ),
        topics.AUDIT_EVENTS: Content(Mode.STRUCTURED, (AuditRecorded,)),
        topics.AUDIT_CHECKPOINTS: Content(Mode.STRUCTURED, (AuditCheckpoint,), in_use=False),
        topics.DEAD_LETTERS: Content(Mode.ORIGINAL),
    }
)
