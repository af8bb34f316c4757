import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

from ctrainer.agents.records import Handler, OutputRecord, RecordBatch
from ctrainer.schemas.topics import DEAD_LETTERS
from ctrainer.streams.application import create_application
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.transactional_source import Subscription, TransactionalSource
from tests.conftest import create_topics
from tests.waiting import eventually

MakeTopics = Callable[..., Awaitable[tuple[str, ...]]]
POINTS = ("after-read", "after-decide", "after-produce", "before-commit")


class Outage:
    """A fault point that loses the connection once, where it is told to."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.happened = False

    async def __call__(self, point: str, _partition: int) -> None:
        if point == self.point and not self.happened:
            self.happened = True
            raise KafkaConnectionError


class Restores:
    """Notes every rebuild of a stage's state."""

    def __init__(self) -> None:
        self.committed: list[int] = []

    async def __call__(self, _partition: int, committed_offset: int) -> None:
        self.committed.append(committed_offset)


async def send(bootstrap_servers: str, topic: str, values: Sequence[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers)
    await producer.start()
    for value in values:
        await producer.send_and_wait(topic, value, partition=0)
    await producer.stop()


async def values_of(bootstrap_servers: str, topic: str) -> list[bytes | None]:
    return [record.value async for record in TopicReader(bootstrap_servers=bootstrap_servers).read_topic(topic)]


@pytest.mark.parametrize("point", POINTS)
async def test_after_a_failed_transaction_reading_goes_on_at_the_committed_offset(
    bootstrap_servers: str, make_topics: MakeTopics, point: str
) -> None:
    source_topic, sink = await make_topics("in", "out", partitions=1)
    inputs = [b"%d" % number for number in range(50)]
    await send(bootstrap_servers, source_topic, inputs)
    done = asyncio.Event()

    async def passed(batch: RecordBatch) -> list[OutputRecord]:
        if batch.records[-1].offset == len(inputs) - 1:
            done.set()
        return [OutputRecord(sink, None, record.value, record.timestamp) for record in batch.records]

    outage, restores = Outage(point), Restores()
    app = create_application("test")
    source = TransactionalSource(
        subscription=Subscription(
            application="test",
            bootstrap_servers=bootstrap_servers,
            topic=source_topic,
            group=source_topic,
            max_records=10,
        ),
        stage=Stage(app, name="pass", handler=passed),
        metrics=StreamMetrics.register(CollectorRegistry()).of("pass"),
        restore=restores,
        probe=outage,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app)
        await stack.enter_async_context(source)
        await asyncio.wait_for(done.wait(), 60)
    assert outage.happened
    assert restores.committed == [0, 0], "the state is rebuilt at the offset where reading goes on"
    assert await values_of(bootstrap_servers, sink) == inputs


LARGEST = 16 * 1024 * 1024
TOO_LARGE = b"x" * (LARGEST + 1)


@asynccontextmanager
async def engine(
    bootstrap_servers: str, topic: str, handler: Handler
) -> AsyncIterator[tuple[TransactionalSource, CollectorRegistry]]:
    """Run one stage on a topic."""
    registry = CollectorRegistry()
    app = create_application(topic)
    source = TransactionalSource(
        subscription=Subscription(
            application=topic, bootstrap_servers=bootstrap_servers, topic=topic, group=topic, max_records=10
        ),
        stage=Stage(app, name="stage", handler=handler),
        metrics=StreamMetrics.register(registry).of("stage"),
    )
    async with app, source:
        yield source, registry


def handled(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("constitutional_records_total", {"stage": "stage", "partition": "0"}) or 0.0


async def dead_letters_of(bootstrap_servers: str, topic: str) -> list[tuple[bytes | None, dict[str, bytes]]]:
    letters = TopicReader(bootstrap_servers=bootstrap_servers).read_topic(DEAD_LETTERS)
    found = [(letter.value, dict(letter.headers)) async for letter in letters]
    return [(value, headers) for value, headers in found if headers["dlq.src.topic"] == topic.encode()]


@pytest.mark.parametrize("place", [0, 7, 23])
async def test_a_record_whose_output_no_topic_takes_dies_alone_and_the_others_pass(
    bootstrap_servers: str, make_topics: MakeTopics, place: int
) -> None:
    await TopicAdministration(bootstrap_servers=bootstrap_servers, partitions=4, replication_factor=1).apply()
    source_topic, sink = await make_topics("in", "out", partitions=1)
    inputs = [b"%d" % number for number in range(24)]
    await send(bootstrap_servers, source_topic, inputs)

    async def grown(batch: RecordBatch) -> list[OutputRecord]:
        return [
            OutputRecord(sink, None, TOO_LARGE if record.offset == place else record.value, record.timestamp)
            for record in batch.records
        ]

    async with engine(bootstrap_servers, source_topic, grown) as (_, registry):
        await eventually(lambda: handled(registry) >= len(inputs))
    assert handled(registry) == len(inputs)
    assert await values_of(bootstrap_servers, sink) == [value for value in inputs if value != b"%d" % place]
    ((value, headers),) = await dead_letters_of(bootstrap_servers, source_topic)
    assert (value, headers["dlq.reason"]) == (inputs[place], b"output-too-large")


async def test_a_poison_record_that_was_small_only_while_compressed_leaves_a_reference(
    bootstrap_servers: str, make_topics: MakeTopics
) -> None:
    await TopicAdministration(bootstrap_servers=bootstrap_servers, partitions=4, replication_factor=1).apply()
    source_topic, sink = await make_topics("in", "out", partitions=1)
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, compression_type="gzip", max_request_size=2 * LARGEST
    )
    await producer.start()
    for value in (b"before", TOO_LARGE, b"after"):
        await producer.send_and_wait(source_topic, value)
    await producer.stop()

    async def picky(batch: RecordBatch) -> list[OutputRecord]:
        if any(len(record.value or b"") > LARGEST for record in batch.records):
            raise ValueError
        return [OutputRecord(sink, None, record.value, record.timestamp) for record in batch.records]

    async with engine(bootstrap_servers, source_topic, picky) as (_, registry):
        await eventually(lambda: handled(registry) == 3)
    assert await values_of(bootstrap_servers, sink) == [b"before", b"after"]
    ((omitted, headers),) = await dead_letters_of(bootstrap_servers, source_topic)
    assert omitted is None
    assert (headers["dlq.src.offset"], headers["dlq.omitted.bytes"]) == (b"1", b"%d" % len(TOO_LARGE))


async def test_an_idle_source_is_ready_only_as_long_as_the_broker_answers(own_broker: KafkaBroker) -> None:
    servers = str(own_broker.bootstrap_servers)
    (topic,) = await create_topics(servers, "in", partitions=1)

    async def never(_batch: RecordBatch) -> list[OutputRecord]:
        return []

    async with engine(servers, topic, never) as (source, _):
        await eventually(lambda: source.is_serving(time.monotonic(), 3.0))
        await asyncio.to_thread(own_broker.kill)
        await eventually(lambda: not source.is_serving(time.monotonic(), 3.0))
        await asyncio.to_thread(own_broker.start)
        await eventually(lambda: source.is_serving(time.monotonic(), 3.0))


async def test_a_batch_may_take_hours_and_is_neither_dropped_nor_the_last_one(
    bootstrap_servers: str, make_topics: MakeTopics
) -> None:
    """A client that fetches nothing for long leaves its group, and joins it anew when it fetches: never."""
    source_topic, sink = await make_topics("in", "out", partitions=1)
    await send(bootstrap_servers, source_topic, [b"slow"])
    begun, may_end, batches = asyncio.Event(), asyncio.Event(), list[RecordBatch]()

    async def slow(batch: RecordBatch) -> list[OutputRecord]:
        batches.append(batch)
        begun.set()
        await may_end.wait()
        return [OutputRecord(sink, None, record.value, record.timestamp) for record in batch.records]

    async with engine(bootstrap_servers, source_topic, slow) as (source, registry):
        await asyncio.wait_for(begun.wait(), 60)
        (owner,) = source.owners
        group = owner._consumer._coordinator
        heartbeats = _Heartbeats(group)
        owner._consumer._subscription._last_fetch_ended -= 36_000.0
        await eventually(lambda: heartbeats.sent >= 2 or group.generation < 0)
        assert source.owners == (owner,)
        may_end.set()
        await send(bootstrap_servers, source_topic, [b"next"])
        await eventually(lambda: handled(registry) == 2)
    assert await values_of(bootstrap_servers, sink) == [b"slow", b"next"]
    assert [len(batch.records) for batch in batches] == [1, 1]


class _Heartbeats:
    """Counts what a member of a group sends to show that it lives."""

    def __init__(self, coordinator: Any) -> None:
        self.sent = 0
        self._send = coordinator._do_heartbeat
        coordinator._do_heartbeat = self._count

    async def _count(self) -> bool:
        answer: bool = await self._send()
        self.sent += 1
        return answer
