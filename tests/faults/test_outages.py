import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ctrainer.streams.committed_offsets import CommittedOffsets
from ctrainer.streams.embedded.kafka import KafkaBroker
from tests.conftest import create_topics
from tests.faults.stream import PARTITIONS, Stream

OUTAGE_SECONDS = 10.0
RECORDS = 2_000
COMMITS = 10_000


@pytest.fixture
async def stream(own_broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Stream]:
    servers = str(own_broker.bootstrap_servers)
    source, target = await create_topics(servers, "outage-in", "outage-out", partitions=PARTITIONS)
    async with Stream(bootstrap_servers=servers, source=source, target=target, log=tmp_path / "log") as stream:
        yield stream


async def test_broker_that_dies_for_ten_seconds_is_survived_by_both_workers(
    own_broker: KafkaBroker, stream: Stream
) -> None:
    workers = await stream.two_workers()
    await stream.send(3 * RECORDS, poison_every=401)
    await stream.until(lambda: stream.arrived > 0)
    await asyncio.to_thread(own_broker.kill)
    arrived = stream.arrived
    ends = [asyncio.create_task(worker.ended()) for worker in workers]
    ended, _ = await asyncio.wait(ends, timeout=OUTAGE_SECONDS)
    assert ended == set()
    assert arrived < stream.expected
    await asyncio.to_thread(own_broker.start)
    await stream.send(RECORDS, poison_every=401)
    await stream.until_done()
    assert [worker.has_ended for worker in workers] == [False, False]
    await stream.verify()


async def test_a_coordinator_that_comes_up_never_seems_to_have_nothing_committed(own_broker: KafkaBroker) -> None:
    """Enough commits make loading them take a while, in which the coordinator answers without any partition."""
    servers = str(own_broker.bootstrap_servers)
    (topic,) = await create_topics(servers, "outage-in", partitions=1)
    place = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=topic, enable_auto_commit=False)
    committed = CommittedOffsets.connected(bootstrap_servers=servers, security={}, group=topic)
    async with consumer, committed as offsets:
        consumer.assign([place])
        for _ in range(COMMITS):
            await consumer.commit({place: 7})
        await asyncio.to_thread(own_broker.kill)
        start = asyncio.create_task(asyncio.to_thread(own_broker.start))
        async with asyncio.timeout(OUTAGE_SECONDS + 60):
            said = await _first_said(offsets, place)
        await start
    assert said == 7


async def _first_said(offsets: CommittedOffsets, place: TopicPartition) -> int | None:
    """Ask until there is an answer."""
    while True:
        try:
            return await offsets.of(place)
        except KafkaError:
            await asyncio.sleep(0)
