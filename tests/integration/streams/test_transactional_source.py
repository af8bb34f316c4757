import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry

from ctrainer.agents.records import OutputRecord, RecordBatch
from ctrainer.streams.application import create_application
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.transactional_source import Subscription, TransactionalSource

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
