from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer, TopicPartition

from ctrainer.streams.committed_offsets import CommittedOffsets

MakeTopics = Callable[..., Awaitable[tuple[str, ...]]]


async def test_a_coordinator_names_every_partition_it_is_asked_about_committed_or_not(
    bootstrap_servers: str, make_topics: MakeTopics
) -> None:
    (topic,) = await make_topics("in", partitions=2)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers, group_id=topic, enable_auto_commit=False)
    committed = CommittedOffsets.connected(bootstrap_servers=bootstrap_servers, security={}, group=topic)
    async with consumer, committed as offsets:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.commit({TopicPartition(topic, 0): 7})
        assert await offsets.of(TopicPartition(topic, 0)) == 7
        assert await offsets.of(TopicPartition(topic, 1)) is None
