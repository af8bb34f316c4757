from collections.abc import Awaitable, Callable

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from ctrainer.agents.records import Record
from ctrainer.schemas.datasets import OffsetRange
from ctrainer.streams.topic_reader import PrunedRangeError, TopicReader

MakeTopics = Callable[..., Awaitable[tuple[str, ...]]]


async def everything(reader: TopicReader, topic: str, partition: int | None = None) -> list[Record]:
    return [record async for record in reader.read_topic(topic, partition)]


async def publish(bootstrap_servers: str, topic: str, values: list[bytes], *, abort: bool = False) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id=f"test-{topic}")
    await producer.start()
    await producer.begin_transaction()
    for value in values:
        await producer.send_and_wait(topic, value, partition=0)
    await (producer.abort_transaction() if abort else producer.commit_transaction())
    await producer.stop()


async def test_an_empty_topic_is_read_as_empty(bootstrap_servers: str, make_topics: MakeTopics) -> None:
    (topic,) = await make_topics("empty")
    reader = TopicReader(bootstrap_servers=bootstrap_servers)
    assert await everything(reader, topic) == []
    assert await reader.end_offsets(topic) == {0: 0, 1: 0, 2: 0, 3: 0}


async def test_what_was_committed_a_moment_ago_is_seen_and_what_was_aborted_is_not(
    bootstrap_servers: str,
    make_topics: MakeTopics,
) -> None:
    (topic,) = await make_topics("committed", partitions=1)
    reader = TopicReader(bootstrap_servers=bootstrap_servers)
    for number in range(10):
        await publish(bootstrap_servers, topic, [b"lost"], abort=True)
        await publish(bootstrap_servers, topic, [b"%d" % number])
        values = [record.value for record in await everything(reader, topic)]
        assert values == [b"%d" % seen for seen in range(number + 1)]


async def test_a_range_is_read_exactly_and_a_pruned_one_is_refused(
    bootstrap_servers: str,
    make_topics: MakeTopics,
) -> None:
    (topic,) = await make_topics("range", partitions=1)
    await publish(bootstrap_servers, topic, [b"%d" % number for number in range(10)])
    reader = TopicReader(bootstrap_servers=bootstrap_servers)
    wanted = OffsetRange(topic=topic, partition=0, start=3, end=7)
    assert [record.offset async for record in reader.read_ranges([wanted])] == [3, 4, 5, 6]

    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await client.start()
    await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=5)})
    await client.close()
    with pytest.raises(PrunedRangeError, match="starts at 3, the first one kept is 5"):
        _ = [record async for record in reader.read_ranges([wanted])]
