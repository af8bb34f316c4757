import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer

from ctrainer.agents.records import Record
from ctrainer.streams.topic_follower import TopicFollower
from tests.conftest import MakeTopics

_PATIENCE_SECONDS = 60


class Picture:
    """What a follower told, and a way to wait for it."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self.changes = asyncio.Queue[int]()

    def apply(self, record: Record) -> None:
        self.values.append(record.value)

    async def changed(self) -> None:
        self.changes.put_nowait(len(self.values))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await self.changes.get() < count:
                pass


@pytest.fixture
async def producer(bootstrap_servers: str) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id="follower-test") as producer:
        yield producer


async def test_a_follower_tells_what_was_there_then_what_comes_and_never_what_was_aborted(
    bootstrap_servers: str, make_topics: MakeTopics, producer: AIOKafkaProducer
) -> None:
    (topic,) = await make_topics("followed", partitions=1)
    async with producer.transaction():
        await producer.send_and_wait(topic, b"old")
    picture = Picture()
    follower = TopicFollower(
        bootstrap_servers=bootstrap_servers,
        security={},
        topics=[topic],
        apply=picture.apply,
        changed=picture.changed,
    )
    async with follower:
        await asyncio.wait_for(follower.caught_up.wait(), _PATIENCE_SECONDS)
        assert picture.values == [b"old"]
        await producer.begin_transaction()
        await producer.send_and_wait(topic, b"aborted")
        await producer.abort_transaction()
        async with producer.transaction():
            await producer.send_and_wait(topic, b"new")
        await picture.until(2)
    assert picture.values == [b"old", b"new"]


async def test_a_follower_of_an_empty_topic_has_caught_up_and_says_so(
    bootstrap_servers: str, make_topics: MakeTopics
) -> None:
    (topic,) = await make_topics("empty", partitions=2)
    picture = Picture()
    follower = TopicFollower(
        bootstrap_servers=bootstrap_servers,
        security={},
        topics=[topic],
        apply=picture.apply,
        changed=picture.changed,
    )
    async with follower:
        await asyncio.wait_for(follower.caught_up.wait(), _PATIENCE_SECONDS)
        await picture.until(0)
    assert picture.values == []
