import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from prometheus_client import CollectorRegistry

from ctrainer.agents.events import read_event
from ctrainer.agents.privacy import PrivacyLedger
from ctrainer.agents.records import Record
from ctrainer.agents.sessions import Sessions
from ctrainer.schemas.adapters import AdapterRejected
from ctrainer.schemas.privacy import (
    BudgetGranted,
    BudgetRefused,
    BudgetSettled,
    BudgetViolated,
    LedgerRecord,
    NoGuarantee,
    NoMechanism,
    NonPrivateDeclared,
    PrivacyGuarantee,
)
from ctrainer.schemas.release import ReleaseCheck, ReleaseVerdict
from ctrainer.schemas.topics import PRIVACY_EVENTS, PRIVACY_LEDGER, PRIVACY_REQUESTS, TRAINING_PROGRESS
from ctrainer.schemas.training import SessionState, TrainingAssignment
from ctrainer.streams.application import create_application
from ctrainer.streams.event_watch import watch
from ctrainer.streams.location import Location
from ctrainer.streams.session_channel import SessionChannel, SessionFencedError, SessionStoppedError
from ctrainer.streams.settings import Settings
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.transactional_source import Subscription, TransactionalSource
from tests.assigned import CONSTITUTION, assignment

Open = Callable[..., Awaitable[SessionChannel]]


def session_in(scope: str) -> TrainingAssignment:
    return assignment(str(uuid4()), scope=scope)


def violation(record: Record) -> BudgetViolated | None:
    value = record.value or b""
    return read_event(value, BudgetViolated) if b".BudgetViolated." in value else None


@pytest.fixture
async def topics(bootstrap_servers: str) -> None:
    administration = TopicAdministration(bootstrap_servers=bootstrap_servers, partitions=4, replication_factor=1)
    await administration.apply()


@pytest.fixture
async def open_channel(bootstrap_servers: str, topics: None, tmp_path: Path) -> AsyncIterator[Open]:  # noqa: ARG001
    settings = Settings(cache_folder=tmp_path, state_folder=tmp_path)
    location = Location(bootstrap_servers=bootstrap_servers, redis_url=None)
    async with AsyncExitStack() as stack:

        async def opened(of: TrainingAssignment, *, should_stop: Callable[[], bool] = lambda: False) -> SessionChannel:
            channel = await SessionChannel.open(settings, location, of, CONSTITUTION, should_stop=should_stop)
            stack.push_async_callback(channel.close)
            return channel

        yield opened


@pytest.fixture
async def ledger(bootstrap_servers: str, topics: None) -> AsyncIterator[None]:  # noqa: ARG001 - they must exist
    """The real ledger agent on the real engine."""
    handler = PrivacyLedger(topics=TopicReader(bootstrap_servers=bootstrap_servers), in_force=lambda: CONSTITUTION)
    app = create_application("ledger")
    source = TransactionalSource(
        subscription=Subscription(
            application="ledger", bootstrap_servers=bootstrap_servers, topic=PRIVACY_REQUESTS, group="ledger-test"
        ),
        stage=Stage(app, name="privacy", handler=handler),
        metrics=StreamMetrics.register(CollectorRegistry()).of("privacy"),
        restore=handler.restore,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app)
        await stack.enter_async_context(source)
        yield


async def test_a_second_process_of_a_session_fences_the_first_before_it_can_reserve(open_channel: Open) -> None:
    session = session_in(f"acme/{uuid4()}")
    first = await open_channel(session)
    await first.advanced(SessionState.STARTED, 0)
    second = await open_channel(session)
    with pytest.raises(SessionFencedError):
        await first.reserve(0, 8)
    await second.advanced(SessionState.STARTED, 0)


async def test_a_wait_for_the_ledger_ends_when_the_session_is_asked_to_stop(open_channel: Open) -> None:
    channel = await open_channel(session_in(f"acme/{uuid4()}"), should_stop=lambda: True)
    with pytest.raises(SessionStoppedError):
        await channel.reserve(0, 8)


async def test_a_rejected_adapter_ends_its_session_and_is_told_with_reasons(
    open_channel: Open, bootstrap_servers: str
) -> None:
    session = session_in(f"acme/{uuid4()}")
    channel = await open_channel(session)
    release = ReleaseVerdict(
        passed=False,
        reasons=("compliance",),
        checks=(ReleaseCheck(name="compliance", passed=False, got=0.5, expected=0.95, base=1.0),),
        probes_digest="sha256:00",
    )
    rejected = AdapterRejected(
        adapter_id="a",
        session_id=session.session_id,
        tenant="acme",
        digest="sha256:00",
        base_model="tiny",
        dataset_id="d",
        steps=40,
        release=release,
    )
    await channel.rejected(rejected, 40)

    sessions, told = Sessions(), []
    async for record in TopicReader(bootstrap_servers=bootstrap_servers).read_topic(TRAINING_PROGRESS):
        if record.key == session.session_id.encode():
            sessions = sessions.after(record)
            told.append(orjson.loads(record.value or b""))
    newest = sessions.by_id[session.session_id].newest
    assert newest is not None
    assert (newest.state, newest.reason) == (SessionState.REJECTED, "gate-rejected")
    assert sessions.by_id[session.session_id].is_final
    assert AdapterRejected.model_validate(told[0]["data"]) == rejected


@pytest.mark.usefixtures("ledger")
async def test_a_session_that_broke_its_plan_is_told_has_failed_and_gets_no_grant_any_more(
    open_channel: Open, bootstrap_servers: str
) -> None:
    session = session_in(f"acme/{uuid4()}")
    channel = await open_channel(session)
    assert isinstance(await channel.reserve(0, 8), BudgetGranted)
    reader = TopicReader(bootstrap_servers=bootstrap_servers)
    async with watch(reader, [PRIVACY_EVENTS]) as events:
        await channel.violated(0, reason="noise-out-of-plan", message="m")
        violated = await events.first(
            violation,
            within_seconds=20,
            what="BudgetViolated",
        )
    assert (violated.session_id, violated.reason) == (session.session_id, "noise-out-of-plan")

    refused = await (await open_channel(session)).reserve(8, 8)
    assert isinstance(refused, BudgetRefused)
    assert refused.reason == "session-stopped"
    sessions = Sessions()
    async for record in reader.read_topic(TRAINING_PROGRESS):
        sessions = sessions.after(record)
    newest = sessions.by_id[session.session_id].newest
    assert newest is not None
    assert (newest.state, newest.reason) == (SessionState.FAILED, "noise-out-of-plan")


@pytest.mark.usefixtures("ledger")
async def test_blocks_are_granted_until_the_budget_refuses_and_a_new_process_knows_the_spend(
    open_channel: Open,
) -> None:
    session = session_in(f"acme/{uuid4()}")
    channel = await open_channel(session)
    granted = await channel.reserve(0, 8)
    assert isinstance(granted, BudgetGranted)
    await channel.advanced(SessionState.TRAINING, 8)

    refused = await channel.reserve(8, 1_000_000)
    assert isinstance(refused, BudgetRefused)
    assert refused.reason == "budget-exhausted"
    assert refused.acceptable_steps > 0

    successor = await open_channel(session)
    assert isinstance(successor.spent, PrivacyGuarantee)
    assert successor.spent.epsilon == pytest.approx(granted.epsilon)


async def settlements(bootstrap_servers: str, session: TrainingAssignment, count: int) -> list[tuple[str, int]]:
    """Return the reservations of a session that the ledger has settled, and the steps used, once there are so many."""
    reader = TopicReader(bootstrap_servers=bootstrap_servers)
    async with asyncio.timeout(30):
        while True:
            entries = [
                read_event(record.value, LedgerRecord).entry
                async for record in reader.read_topic(PRIVACY_LEDGER)
                if record.key == session.scope.encode()
            ]
            requests = [entry.request for entry in entries if isinstance(entry, BudgetSettled)]
            if len(requests) >= count:
                return [(request.reservation_id, request.steps_used) for request in requests]


@pytest.mark.usefixtures("ledger")
async def test_a_block_reserved_ahead_is_settled_when_it_ran_or_as_unused_when_the_session_stops(
    open_channel: Open, bootstrap_servers: str
) -> None:
    session = session_in(f"acme/{uuid4()}")
    channel = await open_channel(session)
    grants = [await channel.reserve(first, 8) for first in (0, 8)]
    spent = channel.spent
    await channel.advanced(SessionState.TRAINING, 8)
    # Two at a time, as when a block is asked for ahead while progress is told.
    third, _ = await asyncio.gather(channel.reserve(16, 8), channel.advanced(SessionState.TRAINING, 16))
    await channel.settle(16)

    used = await settlements(bootstrap_servers, session, 3)
    assert dict(used) == {
        grant.request.reservation_id: steps for grant, steps in zip([*grants, third], (8, 8, 0), strict=True)
    }
    successor = await open_channel(session)
    assert isinstance(spent, PrivacyGuarantee)
    assert isinstance(successor.spent, PrivacyGuarantee)
    assert successor.spent.epsilon > spent.epsilon


@pytest.mark.usefixtures("ledger")
async def test_a_new_process_knows_which_steps_a_former_one_may_have_released(open_channel: Open) -> None:
    session = session_in(f"acme/{uuid4()}")
    former = await open_channel(session)
    assert former.granted_before == 0
    await former.reserve(0, 8)
    await former.advanced(SessionState.TRAINING, 5)
    stopped = await open_channel(session)
    assert stopped.granted_before == 5
    await stopped.reserve(5, 8)
    assert (await open_channel(session)).granted_before == 13


@pytest.mark.usefixtures("ledger")
async def test_a_session_without_privacy_tells_the_ledger_once_and_spends_nothing(open_channel: Open) -> None:
    private = session_in(f"acme/{uuid4()}")
    nothing = NoMechanism(unsafe_non_private=True, sampling_rate=0.1, expected_batch_size=6)
    session = session_in(private.scope).model_copy(update={"mechanism": nothing, "epsilon_planned": None})
    channel = await open_channel(session)
    declared = await channel.reserve(0, 8)
    assert isinstance(declared, NonPrivateDeclared)
    assert await channel.reserve(8, 8) == declared
    successor = await open_channel(session)
    assert await successor.reserve(8, 8) == declared
    assert successor.spent == NoGuarantee(unsafe_non_private=True)
    other = await open_channel(private)
    granted = await other.reserve(0, 8)
    assert isinstance(granted, BudgetGranted)
    assert isinstance(other.spent, PrivacyGuarantee)
    assert (granted.sequence, other.spent.unsafe_non_private) == (2, True)
