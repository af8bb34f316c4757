"""Follows whole topics from their first record on, for as long as it runs: how a process keeps a picture of them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from mode import Service

from ctrainer.agents.records import Record
from ctrainer.streams.topic_reader import TopicReader, to_record


class TopicFollower(Service):
    """Hands every committed record of `topics` to `apply`, old ones first, then new ones as they come.

    `caught_up` is set once everything that was there at the start has been applied. `changed` is called after each
    group of records, and waited for.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        security: Mapping[str, Any],
        topics: Sequence[str],
        apply: Callable[[Record], None],
        changed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__()
        self.caught_up = asyncio.Event()
        self._reader = TopicReader(bootstrap_servers=bootstrap_servers, security=security)
        self._bootstrap_servers = bootstrap_servers
        self._security = security
        self._topics = topics
        self._apply = apply
        self._changed = changed

    @Service.task
    async def _follow(self) -> None:
        ends = {
            TopicPartition(topic, partition): end
            for topic in self._topics
            for partition, end in (await self._reader.end_offsets(topic)).items()
        }
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            **self._security,
        )
        await consumer.start()
        try:
            consumer.assign(list(ends))
            await consumer.seek_to_beginning()
            while not self.should_stop:
                await self._take(consumer, ends)
        finally:
            await consumer.stop()

    async def _take(self, consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> None:
        fetched = await consumer.getmany(timeout_ms=200)
        for records in fetched.values():
            for record in records:
                self._apply(to_record(record))
        if not self.caught_up.is_set():
            places = [await consumer.position(place) >= end for place, end in ends.items()]
            if all(places):
                self.caught_up.set()
                await self._tell()
        elif fetched:
            await self._tell()

    async def _tell(self) -> None:
        if self._changed is not None:
            await self._changed()
