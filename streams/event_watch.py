"""Watches topics from now on: opened before a command is sent, so that its answer cannot be missed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from ctrainer.agents.records import Record
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.streams.topic_reader import TopicReader, to_record

Found = TypeVar("Found")


class NoAnswerError(ConstitutionalTrainerError):
    """Nothing that was waited for came in time."""


@dataclass(frozen=True, slots=True)
class EventWatch:
    """An open watch; each record is seen once, in the order the brokers give it."""

    consumer: AIOKafkaConsumer

    async def records(self) -> AsyncIterator[Record]:
        """Yield new committed records for ever."""
        async for record in self.consumer:
            yield to_record(record)

    async def first(self, match: Callable[[Record], Found | None], *, within_seconds: float, what: str) -> Found:
        """Return what `match` makes of the first record it accepts.

        Raises:
            NoAnswerError: no record matched within the time; `what` names it in the message.
        """
        try:
            return await asyncio.wait_for(self._first(match), within_seconds)
        except TimeoutError as error:
            raise NoAnswerError(f"no {what} within {within_seconds:.0f} s; does `ctrainer worker` run?") from error

    async def _first(self, match: Callable[[Record], Found | None]) -> Found:
        async for record in self.records():
            found = match(record)
            if found is not None:
                return found
        raise NoAnswerError("the consumer was closed")


@asynccontextmanager
async def watch(
    reader: TopicReader, topics: Sequence[str], *, partition: int | None = None
) -> AsyncIterator[EventWatch]:
    """Watch `topics`, or one partition of each, from their present ends on."""
    ends = await _ends(reader, topics)
    starts = {place: end for place, end in ends.items() if partition in {None, place.partition}}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=reader.bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
        **reader.security,
    )
    await consumer.start()
    try:
        consumer.assign(list(starts))
        for place, offset in starts.items():
            consumer.seek(place, offset)
        yield EventWatch(consumer)
    finally:
        await consumer.stop()


async def _ends(reader: TopicReader, topics: Sequence[str]) -> Mapping[Any, int]:
    return {
        TopicPartition(topic, partition): end
        for topic in topics
        for partition, end in (await reader.end_offsets(topic)).items()
    }
