"""The composition root of `ctrainer worker`: settings become services, and the services run until SIGTERM."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

from mode import Service
from prometheus_client import CollectorRegistry

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.guard import GuardModel
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.constitutions import ConstitutionDesk
from ctrainer.agents.force import Force, Judges, appoint
from ctrainer.agents.revision_tally import RevisionTally
from ctrainer.agents.tally import Tally
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.application import create_application
from ctrainer.streams.cache_seal import cache_seal
from ctrainer.streams.constitution_watch import ConstitutionWatch, latest_constitution
from ctrainer.streams.garbage_collection import search_seldom
from ctrainer.streams.guard.guards import connect_guard, guard_model, guard_of
from ctrainer.streams.judgement_metrics import JudgementMetrics
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import Location, locate
from ctrainer.streams.logs import configure_logs
from ctrainer.streams.partitioning import partition_for
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.policy.engines import connect, engine_of
from ctrainer.streams.reviser import ProcessReviser
from ctrainer.streams.revision_metrics import RevisionMetrics
from ctrainer.streams.roles import Role
from ctrainer.streams.settings import Settings
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.stages import Parts, StagePlan, plan_stages
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.transactional_outlet import Probe
from ctrainer.streams.transactional_source import Subscription, TransactionalSource
from ctrainer.streams.verdict_cache import RedisVerdictCache
from ctrainer.streams.watched_keyring import WatchedKeyring
from ctrainer.streams.worker_pages import WorkerPages

_LOG = logging.getLogger(__name__)


class WorkerCrashedError(ConstitutionalTrainerError):
    """A service of the worker ended by a fault of its own; the log has the details."""


def run_worker(settings: Settings, roles: frozenset[Role]) -> None:
    """Run a worker in this process until SIGTERM or SIGINT; batches that are being published are finished first.

    Raises:
        ConstitutionalTrainerError: settings, constitution, keyring or topics are not as they must be.
    """
    configure_logs()
    asyncio.run(serve(settings, roles))


async def serve(settings: Settings, roles: frozenset[Role], *, probe: Probe | None = None) -> None:
    """Run a worker until this process is asked to end."""
    asked_to_end = _asked_to_end()
    location = locate(settings)
    constitution = read_constitution(settings)
    await _administration(settings, location).require()
    registry = CollectorRegistry()
    async with AsyncExitStack() as stack:
        cache = await _verdict_cache(settings, location, stack)
        connection = _closed_at_the_end(connect(settings), stack)
        guard = _closed_at_the_end(connect_guard(settings), stack)
        tally = Tally()
        JudgementMetrics.register(registry, tally, connection, guard)
        appoint_judges = partial(
            _appoint,
            settings=settings,
            connection=connection,
            guard=guard_model(settings, guard, cache),
            cache=cache,
            tally=tally,
        )
        reviser = _reviser(settings)
        parts = await _parts(settings, location, constitution, appoint_judges, reviser, tally=tally)
        RevisionMetrics.register(registry, parts.revision, reviser)
        app = create_application(settings.application)
        metrics = StreamMetrics.register(registry)
        sources = [
            TransactionalSource(
                subscription=_subscription(settings, location, plan),
                stage=Stage(app, name=plan.name, handler=plan.handler),
                metrics=metrics.of(plan.name),
                restore=plan.restore,
                probe=probe,
            )
            for plan in plan_stages(roles, parts)
        ]
        pages = WorkerPages(
            host=settings.web_host,
            port=settings.web_port,
            sources=sources,
            registry=registry,
            facts=partial(_facts, settings, roles, parts),
        )
        follower = parts.watch.follower(
            bootstrap_servers=location.bootstrap_servers, security=client_security(settings)
        )
        search_seldom()
        await _run([reviser, app, follower, *sources, *([pages] if settings.web_port else [])], asked_to_end)


async def _run(services: list[Service], asked_to_end: asyncio.Event) -> None:
    """Start services in order, wait, and stop them in the opposite order: sources before the agents they feed.

    Raises:
        WorkerCrashedError: a service ended by itself.
    """
    started: list[Service] = []
    try:
        for service in services:
            await service.start()
            started.append(service)
        _LOG.info("worker is up with %d services", len(started))
        await _first_end(services, asked_to_end)
    finally:
        for service in reversed(started):
            await service.stop()
    crashed = [service.label for service in services if service.crashed]
    if crashed:
        raise WorkerCrashedError(f"crashed: {', '.join(crashed)}")


async def _first_end(services: list[Service], asked_to_end: asyncio.Event) -> None:
    ends: list[asyncio.Task[bool]] = [asyncio.create_task(asked_to_end.wait())]
    ends += [asyncio.create_task(service._crashed.wait()) for service in services]  # noqa: SLF001 - mode has no public wait
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    for end in ends:
        end.cancel()


def _asked_to_end() -> asyncio.Event:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked


def _subscription(settings: Settings, location: Location, plan: StagePlan) -> Subscription:
    return Subscription(
        application=settings.application,
        bootstrap_servers=location.bootstrap_servers,
        topic=plan.topic,
        group=settings.group(plan.name),
        security=client_security(settings),
        max_records=plan.max_records or settings.batch_records,
        session_timeout_ms=settings.session_timeout_ms,
    )


async def _parts(
    settings: Settings,
    location: Location,
    constitution: Constitution,
    appoint_judges: Callable[[Constitution], Judges],
    reviser: ProcessReviser,
    *,
    tally: Tally,
) -> Parts:
    topics = TopicReader(bootstrap_servers=location.bootstrap_servers, security=client_security(settings))
    force = Force(appoint_judges(constitution))
    desk = CommandDesk(
        requesters=WatchedKeyring(settings.requesters) if settings.requesters else {},
        in_force=force.reference,
        unsafe_accept_unsigned=settings.unsafe_accept_unsigned,
    )
    constitutions = ConstitutionDesk(
        desk=desk, governance_hash=settings.governance_hash, pinned_digest=settings.constitution_digest
    )
    latest = await latest_constitution(topics, constitutions, constitution)
    if latest is not constitution:
        force.enact(appoint_judges(latest))
    return Parts(
        force=force,
        tally=tally,
        topics=topics,
        desk=desk,
        constitutions=constitutions,
        watch=ConstitutionWatch(topics=topics, desk=constitutions, force=force, appoint=appoint_judges),
        unsafe_allow_seeded_noise=settings.unsafe_allow_seeded_noise,
        unsafe_allow_non_private=settings.unsafe_allow_non_private,
        reviser=reviser,
        revision=RevisionTally(),
        home=lambda key: partition_for(key, settings.partitions, 0),
    )


def _reviser(settings: Settings) -> ProcessReviser:
    """Return the model that rewrites: its process is not started before there is something to rewrite."""
    return ProcessReviser(
        name=settings.revision_model,
        command=[sys.executable, "-m", "ctrainer.streams.revision_process"],
        # Threads of the numeric library that wait by spinning would starve everything else on a small machine.
        environment=settings.environment() | {"OMP_WAIT_POLICY": "PASSIVE"},
    )


def _appoint(
    constitution: Constitution,
    *,
    settings: Settings,
    connection: EngineConnection | None,
    guard: GuardModel | None,
    cache: RedisVerdictCache | None,
    tally: Tally,
) -> Judges:
    engine = engine_of(constitution, settings, connection, tally.layers)
    court = Court(constitution, guard=guard_of(constitution, settings, guard, tally.guard))
    return appoint(court, engine, cache=cache, tally=tally)


def _closed_at_the_end(connection: EngineConnection | None, stack: AsyncExitStack) -> EngineConnection | None:
    if connection is not None:
        stack.push_async_callback(connection.close)
    return connection


async def _verdict_cache(settings: Settings, location: Location, stack: AsyncExitStack) -> RedisVerdictCache | None:
    if location.redis_url is None:
        return None
    prefix, seal = f"{settings.application}:verdict:", cache_seal(settings)
    cache = RedisVerdictCache.connect(location.redis_url, prefix=prefix, seal=seal)
    stack.push_async_callback(cache.close)
    return cache


def _administration(settings: Settings, location: Location) -> TopicAdministration:
    return TopicAdministration(
        bootstrap_servers=location.bootstrap_servers,
        partitions=settings.partitions,
        replication_factor=settings.replication_factor,
        security=client_security(settings),
    )


def _facts(settings: Settings, roles: frozenset[Role], parts: Parts) -> dict[str, object]:
    """Return what `/health` says beside the state of the stages."""
    return {
        "roles": sorted(roles),
        "constitution": parts.force.reference().model_dump(),
        "revision_halted": parts.revision.facts(),
        "unsafe": list(settings.unsafe()),
    }
