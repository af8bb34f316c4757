"""Reads of frozen stretches of topics: no consumer group, no commits, committed transactions only."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from ctrainer.agents.records import Record
from ctrainer.schemas.datasets import OffsetRange
from ctrainer.schemas.errors import ConstitutionalTrainerError


class PrunedRangeError(ConstitutionalTrainerError):
    """Records of a frozen range are no longer there: retention removed them."""

    reason = "dataset-pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicReader:
    """Reads ranges of topics up to offsets that are known before the first record is read.

    The end of a partition is its high watermark: a read waits until transactions that are open there have ended, so it
    sees everything that was committed before it began. (A commit is answered before its records become visible: a read
    up to the last stable offset could miss what the same process committed a moment ago.)
    """

    bootstrap_servers: str
    security: Mapping[str, Any] = field(default_factory=dict)

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the high watermark of each partition of `topic`."""
        return {place.partition: end for place, (_, end) in (await self._spans(topic)).items()}

    async def read_topic(self, topic: str, partition: int | None = None) -> AsyncIterator[Record]:
        """Yield everything `topic` (or one partition of it) holds now, each partition in order."""
        spans = await self._spans(topic)
        wanted = {place: span for place, span in spans.items() if partition in {None, place.partition}}
        async with self._consumer("read_committed") as consumer:
            async for record in _read(consumer, wanted):
                yield record

    async def read_ranges(self, ranges: Sequence[OffsetRange]) -> AsyncIterator[Record]:
        """Yield the records of frozen ranges: range by range in the order given, and in offset order within each.

        Raises:
            PrunedRangeError: a range starts before the first offset that is still kept.
        """
        async with self._consumer("read_committed") as consumer:
            for wanted in ranges:
                place = TopicPartition(wanted.topic, wanted.partition)
                await _require_kept(consumer, place, wanted)
                async for record in _read(consumer, {place: (wanted.start, wanted.end)}):
                    yield record

    async def _spans(self, topic: str) -> dict[TopicPartition, tuple[int, int]]:
        """Return the first kept offset and the high watermark of each partition."""
        async with self._consumer("read_uncommitted") as consumer:
            places = await _partitions_of(consumer, topic)
            starts = await consumer.beginning_offsets(places)
            ends = await consumer.end_offsets(places)
        return {place: (starts[place], ends[place]) for place in places}

    @asynccontextmanager
    async def _consumer(self, isolation_level: str) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation_level,
            max_partition_fetch_bytes=16 * 1024 * 1024,
            **self.security,
        )
        await consumer.start()
        # aiokafka starts a task here whose cancellation, before its first turn, would be mistaken for our own.
        await asyncio.sleep(0)
        try:
            yield consumer
        finally:
            await consumer.stop()


async def _partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """Return the partitions of a topic, asking the cluster for it if this client does not know it yet."""
    # aiokafka has no public call to learn one topic without joining a group.
    consumer._client.add_topic(topic)  # noqa: SLF001
    await consumer._client._wait_on_metadata(topic)  # noqa: SLF001
    return [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]


async def _require_kept(consumer: AIOKafkaConsumer, place: TopicPartition, wanted: OffsetRange) -> None:
    consumer.assign([place])
    first = (await consumer.beginning_offsets([place]))[place]
    if wanted.start < first and wanted.start < wanted.end:
        raise PrunedRangeError(
            f"{place.topic}/{place.partition}: the range starts at {wanted.start}, the first one kept is {first}; "
            "seal the dataset anew, and keep samples.accepted longer than datasets are used"
        )


async def _read(consumer: AIOKafkaConsumer, spans: Mapping[TopicPartition, tuple[int, int]]) -> AsyncIterator[Record]:
    unfinished = {place: end for place, (start, end) in spans.items() if start < end}
    if not unfinished:
        # Assigning nothing would leave the consumer waiting for an assignment for ever.
        return
    consumer.assign(list(unfinished))
    for place in unfinished:
        consumer.seek(place, spans[place][0])
    while unfinished:
        fetched = await consumer.getmany(*unfinished, timeout_ms=1_000)
        for record in _before_end(fetched, unfinished):
            yield record
        for place in [place for place, end in unfinished.items() if await consumer.position(place) >= end]:
            del unfinished[place]


def _before_end(
    fetched: Mapping[TopicPartition, Iterable[ConsumerRecord]], ends: Mapping[TopicPartition, int]
) -> Iterable[Record]:
    for place, records in fetched.items():
        for record in records:
            if record.offset < ends[place]:
                yield to_record(record)


def to_record(record: ConsumerRecord) -> Record:
    """Return an aiokafka record as ours, bytes untouched."""
    return Record(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )
