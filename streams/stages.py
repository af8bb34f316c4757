"""Which stage reads which topic: the wiring of every role."""

from collections.abc import Iterator
from dataclasses import dataclass

from ctrainer.agents.audit import AUDITED, AuditTrail
from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.constitutions import ConstitutionDesk, Constitutions
from ctrainer.agents.curation import AutomaticSealing, CommandedSealing
from ctrainer.agents.force import Force
from ctrainer.agents.privacy import PrivacyLedger
from ctrainer.agents.records import Handler
from ctrainer.agents.registry import AdapterRegistry
from ctrainer.agents.rejudging import Rejudging
from ctrainer.agents.review import Home, Review
from ctrainer.agents.revision import Revision
from ctrainer.agents.revision_tally import RevisionTally
from ctrainer.agents.screening import Screening
from ctrainer.agents.tally import Tally
from ctrainer.agents.training import TrainingDesk
from ctrainer.agents.world import Topics
from ctrainer.schemas.topics import (
    CONSTITUTION_UPDATES,
    FLYWHEEL_SAMPLES,
    PRIVACY_REQUESTS,
    REVIEW_DECISIONS,
    SAMPLES_ACCEPTED,
    SAMPLES_SLOW_LANE,
    TRAINING_REQUESTS,
)
from ctrainer.streams.constitution_watch import ConstitutionWatch
from ctrainer.streams.partition_owner import Restore
from ctrainer.streams.roles import Role
from ctrainer.trainer.models import knows_model
from ctrainer.trainer.plan import make_plan
from ctrainer.trainer.revision import Reviser


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """One stage: what it is called, what it reads, how much at once, and what handles it."""

    name: str
    topic: str
    handler: Handler
    restore: Restore | None = None
    max_records: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the stages are made of."""

    force: Force
    tally: Tally
    topics: Topics
    desk: CommandDesk
    constitutions: ConstitutionDesk
    watch: ConstitutionWatch
    unsafe_allow_seeded_noise: bool
    unsafe_allow_non_private: bool
    reviser: Reviser
    revision: RevisionTally
    home: Home


def plan_stages(roles: frozenset[Role], parts: Parts) -> list[StagePlan]:
    """Return the stages of some roles."""
    makers = {
        Role.SCREENING: _screening,
        Role.SLOW_LANE: _slow_lane,
        Role.REVISION: _revision,
        Role.CONSTITUTION: _constitution,
        Role.CURATION: _curation,
        Role.TRAINING: _training,
        Role.PRIVACY: _privacy,
        Role.AUDIT: _audit,
    }
    return [stage for role in Role if role in roles for stage in makers[role](parts)]


def _screening(parts: Parts) -> Iterator[StagePlan]:
    handler = Screening(judges=parts.force.judges)
    yield StagePlan(name="screening", topic=FLYWHEEL_SAMPLES, handler=handler, restore=parts.watch.taken_over)


def _slow_lane(parts: Parts) -> Iterator[StagePlan]:
    rejudging = Rejudging(judges=parts.force.judges, tally=parts.tally)
    restore = parts.watch.taken_over
    yield StagePlan(name="rejudging", topic=SAMPLES_SLOW_LANE, handler=rejudging, restore=restore)
    review = Review(desk=parts.desk, topics=parts.topics, judges=parts.force.judges, home=parts.home)
    yield StagePlan(name="review", topic=REVIEW_DECISIONS, handler=review, restore=review.restore)


def _revision(parts: Parts) -> Iterator[StagePlan]:
    handler = Revision(judges=parts.force.judges, reviser=parts.reviser, topics=parts.topics, tally=parts.revision)
    yield StagePlan(name="revision", topic=SAMPLES_SLOW_LANE, handler=handler, restore=handler.restore, max_records=4)


def _constitution(parts: Parts) -> Iterator[StagePlan]:
    handler = Constitutions(parts.constitutions, parts.topics)
    yield StagePlan(name="constitution", topic=CONSTITUTION_UPDATES, handler=handler, max_records=1)


def _curation(parts: Parts) -> Iterator[StagePlan]:
    commanded = CommandedSealing(desk=parts.desk, topics=parts.topics)
    yield StagePlan(name="curation", topic=TRAINING_REQUESTS, handler=commanded, max_records=1)
    automatic = AutomaticSealing(topics=parts.topics, in_force=parts.force.reference)
    yield StagePlan(name="curation-automatic", topic=SAMPLES_ACCEPTED, handler=automatic, restore=automatic.restore)


def _training(parts: Parts) -> Iterator[StagePlan]:
    desk = TrainingDesk(
        desk=parts.desk,
        topics=parts.topics,
        make_plan=make_plan,
        knows_model=knows_model,
        unsafe_allow_seeded_noise=parts.unsafe_allow_seeded_noise,
        unsafe_allow_non_private=parts.unsafe_allow_non_private,
    )
    yield StagePlan(name="training", topic=TRAINING_REQUESTS, handler=desk, max_records=1)
    registry = AdapterRegistry(desk=parts.desk, topics=parts.topics)
    yield StagePlan(name="registry", topic=TRAINING_REQUESTS, handler=registry, max_records=1)


def _privacy(parts: Parts) -> Iterator[StagePlan]:
    ledger = PrivacyLedger(topics=parts.topics, in_force=parts.force.reference)
    yield StagePlan(name="privacy", topic=PRIVACY_REQUESTS, handler=ledger, restore=ledger.restore, max_records=100)


def _audit(parts: Parts) -> Iterator[StagePlan]:
    trail = AuditTrail(in_force=parts.force.reference)
    for topic in AUDITED:
        yield StagePlan(name=f"audit-{topic}", topic=topic, handler=trail)
