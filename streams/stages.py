"""Which stage reads which topic: the wiring of every role."""

from collections.abc import Iterator
from dataclasses import dataclass

from ctrainer.agents.audit import AUDITED, AuditTrail
from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.compliance.verdicts import VerdictCache
from ctrainer.agents.curation import AutomaticSealing, CommandedSealing
from ctrainer.agents.privacy import PrivacyLedger
from ctrainer.agents.publication import Publication
from ctrainer.agents.records import Handler
from ctrainer.agents.screening import Screening
from ctrainer.agents.training import TrainingDesk
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.topics import FLYWHEEL_SAMPLES, PRIVACY_REQUESTS, SAMPLES_ACCEPTED, TRAINING_REQUESTS
from ctrainer.streams.partition_owner import Restore
from ctrainer.streams.roles import Role
from ctrainer.trainer.models import knows_model
from ctrainer.trainer.plan import make_plan


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

    constitution: Constitution
    topics: Topics
    desk: CommandDesk
    verdict_cache: VerdictCache | None
    unsafe_allow_seeded_noise: bool


def plan_stages(roles: frozenset[Role], parts: Parts) -> list[StagePlan]:
    """Return the stages of some roles."""
    makers = {
        Role.SCREENING: _screening,
        Role.CURATION: _curation,
        Role.TRAINING: _training,
        Role.PRIVACY: _privacy,
        Role.AUDIT: _audit,
    }
    return [stage for role in Role if role in roles for stage in makers[role](parts)]


def _screening(parts: Parts) -> Iterator[StagePlan]:
    court, engine = Court(parts.constitution), RegorusEngine(bundle_of(parts.constitution))
    screening = Screening(
        court=court, verdicts=court.verdicts(engine, cache=parts.verdict_cache), publication=Publication(court)
    )
    yield StagePlan(name="screening", topic=FLYWHEEL_SAMPLES, handler=screening)


def _curation(parts: Parts) -> Iterator[StagePlan]:
    commanded = CommandedSealing(desk=parts.desk, topics=parts.topics)
    yield StagePlan(name="curation", topic=TRAINING_REQUESTS, handler=commanded, max_records=1)
    automatic = AutomaticSealing(topics=parts.topics, constitution=parts.constitution.reference())
    yield StagePlan(name="curation-automatic", topic=SAMPLES_ACCEPTED, handler=automatic, restore=automatic.restore)


def _training(parts: Parts) -> Iterator[StagePlan]:
    desk = TrainingDesk(
        desk=parts.desk,
        topics=parts.topics,
        make_plan=make_plan,
        knows_model=knows_model,
        unsafe_allow_seeded_noise=parts.unsafe_allow_seeded_noise,
    )
    yield StagePlan(name="training", topic=TRAINING_REQUESTS, handler=desk, max_records=1)


def _privacy(parts: Parts) -> Iterator[StagePlan]:
    ledger = PrivacyLedger(topics=parts.topics, constitution=parts.constitution.reference())
    yield StagePlan(name="privacy", topic=PRIVACY_REQUESTS, handler=ledger, restore=ledger.restore, max_records=100)


def _audit(parts: Parts) -> Iterator[StagePlan]:
    trail = AuditTrail(constitution=parts.constitution.reference())
    for topic in AUDITED:
        yield StagePlan(name=f"audit-{topic}", topic=topic, handler=trail)
