"""Every topic of the system: the one place where a topic is defined. Read it to read the system."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Cleanup(StrEnum):
    """Kafka's `cleanup.policy`."""

    DELETE = "delete"
    COMPACT = "compact"


class Direction(StrEnum):
    """Who a topic is for."""

    INPUT = "input"
    INTERNAL = "internal"
    OUTPUT = "output"


DAY_MS = 24 * 60 * 60 * 1000
FOREVER_MS = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as it must exist on the broker.

    `partitions=None` takes the deployment's setting; topics whose one owner enforces a global limit say 1.
    `retention_ms` is ignored for compacted topics.
    """

    name: str
    key: str
    carries: str
    direction: Direction
    cleanup: Cleanup = Cleanup.DELETE
    partitions: int | None = None
    retention_ms: int = 7 * DAY_MS


_TABLE = (
    Topic(
        name="flywheel.samples",
        key="tenant/workload",
        carries="one logged request/response record",
        direction=Direction.INPUT,
    ),
    Topic(
        name="training.requests",
        key="tenant",
        carries="signed commands: datasets, training sessions, releases of adapters",
        direction=Direction.INPUT,
        partitions=1,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="review.decisions",
        key="sample id, or topic/partition of a halt",
        carries="a human's verdict on a sample in review, or word that a halted model may rewrite again",
        direction=Direction.INPUT,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="constitution.updates",
        key="constitution id",
        carries="a signed constitution document",
        direction=Direction.INPUT,
        partitions=1,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="samples.accepted",
        key="tenant/workload",
        carries="the sample as it may be trained on, with provenance",
        direction=Direction.INTERNAL,
        retention_ms=365 * DAY_MS,
    ),
    Topic(
        name="samples.slow-lane",
        key="tenant/workload",
        carries="samples that await revision, review or a policy engine",
        direction=Direction.INTERNAL,
        retention_ms=30 * DAY_MS,
    ),
    Topic(
        name="samples.preferences",
        key="tenant/workload",
        carries="pairs of a revised conversation and its original",
        direction=Direction.OUTPUT,
        retention_ms=365 * DAY_MS,
    ),
    Topic(
        name="datasets.sealed",
        key="tenant/dataset id",
        carries="dataset manifests: frozen offset ranges, counts, digests",
        direction=Direction.INTERNAL,
        cleanup=Cleanup.COMPACT,
        partitions=1,
    ),
    Topic(
        name="training.assignments",
        key="session id",
        carries="the desired state of each training session",
        direction=Direction.INTERNAL,
        cleanup=Cleanup.COMPACT,
    ),
    Topic(
        name="training.progress",
        key="session id",
        carries="lifecycle and live progress of training sessions, refusals included",
        direction=Direction.OUTPUT,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="adapters.published",
        key="tenant/adapter id, or tenant/releases/workload",
        carries="adapter registry entries, and which adapters each workload is served with",
        direction=Direction.OUTPUT,
        cleanup=Cleanup.COMPACT,
        partitions=1,
    ),
    Topic(
        name="privacy.requests",
        key="budget scope",
        carries="reservations, settlements, declarations and reports of violations from training sessions",
        direction=Direction.INTERNAL,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="privacy.ledger",
        key="budget scope",
        carries="the authoritative, append-only privacy ledger",
        direction=Direction.INTERNAL,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="compliance.events",
        key="sample id",
        carries="one decision per sample",
        direction=Direction.OUTPUT,
        retention_ms=365 * DAY_MS,
    ),
    Topic(
        name="constitution.events",
        key="constitution id, or the topic/partition that it is in force for",
        carries="what became of each document, from where on it is in force, where revision was halted or resumed",
        direction=Direction.OUTPUT,
        partitions=1,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="privacy.events",
        key="budget scope",
        carries="spend, 90 % alert, 95 % halt, violation, refusal",
        direction=Direction.OUTPUT,
        retention_ms=365 * DAY_MS,
    ),
    Topic(
        name="audit.events",
        key="tenant",
        carries="what was decided, spent and published, in tamper-evident order",
        direction=Direction.OUTPUT,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="audit.checkpoints",
        key="origin",
        carries="signed checkpoints over audit.events",
        direction=Direction.OUTPUT,
        retention_ms=FOREVER_MS,
    ),
    Topic(
        name="dead-letters",
        key="source topic/partition/offset",
        carries="original bytes of what could not be handled, with a reason",
        direction=Direction.OUTPUT,
        retention_ms=30 * DAY_MS,
    ),
)

TOPICS: Mapping[str, Topic] = MappingProxyType({topic.name: topic for topic in _TABLE})

FLYWHEEL_SAMPLES = "flywheel.samples"
TRAINING_REQUESTS = "training.requests"
REVIEW_DECISIONS = "review.decisions"
CONSTITUTION_UPDATES = "constitution.updates"
CONSTITUTION_EVENTS = "constitution.events"
SAMPLES_ACCEPTED = "samples.accepted"
SAMPLES_SLOW_LANE = "samples.slow-lane"
SAMPLES_PREFERENCES = "samples.preferences"
DATASETS_SEALED = "datasets.sealed"
TRAINING_ASSIGNMENTS = "training.assignments"
TRAINING_PROGRESS = "training.progress"
ADAPTERS_PUBLISHED = "adapters.published"
PRIVACY_REQUESTS = "privacy.requests"
PRIVACY_LEDGER = "privacy.ledger"
COMPLIANCE_EVENTS = "compliance.events"
PRIVACY_EVENTS = "privacy.events"
AUDIT_EVENTS = "audit.events"
AUDIT_CHECKPOINTS = "audit.checkpoints"
DEAD_LETTERS = "dead-letters"
