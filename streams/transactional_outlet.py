"""One transactional producer for one input partition: outputs and input offsets become visible together or never."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from ctrainer.agents.records import OutputRecord
from ctrainer.streams.partitioning import hashes_of

Probe = Callable[[str, int], Awaitable[None]]
"""A fault point: called with its name and the input partition. Only the fault tests give one."""

_BATCH_BYTES = 512 * 1024
_REQUEST_BYTES = 32 * 1024 * 1024
_TRANSACTION_TIMEOUT_MS = 20_000


class OutputTooLargeError(Exception):
    """An output is larger than its topic allows."""


class TransactionalOutlet:
    """The producer whose `transactional.id` names one input partition, so that a new owner fences the old one."""

    def __init__(
        self,
        *,
        application: str,
        bootstrap_servers: str,
        security: Mapping[str, Any],
        place: TopicPartition,
        group: str,
        probe: Probe | None,
    ) -> None:
        self._place = place
        self._group = group
        self._probe = probe
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers,
            transactional_id=f"{application}-{group}-{place.topic}-{place.partition}",
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
            **security,
        )

    async def start(self) -> None:
        """Fence the previous owner of the partition: its open transaction is aborted before this returns."""
        await self._producer.start()

    async def stop(self) -> None:
        """Close the producer; an open transaction is left to be aborted by the next owner."""
        await self._producer.stop()

    async def publish(self, outputs: Sequence[OutputRecord], next_offset: int) -> None:
        """Publish outputs and commit `next_offset` for the input partition in one transaction.

        Raises:
            OutputTooLargeError: a topic refused the size. Nothing of the transaction is committed.
            KafkaError: anything else. Whether the transaction was committed is known only to a new producer of the
                same id.

        After either the producer must be stopped: it has counted sequence numbers that the broker never took, and
        whatever it sends next to the same partition is out of order.
        """
        await self._producer.begin_transaction()
        try:
            await self._send(outputs)
        except MessageSizeTooLargeError as error:
            raise OutputTooLargeError from error
        await self._at("after-produce")
        await self._producer.send_offsets_to_transaction({self._place: next_offset}, self._group)
        await self._at("before-commit")
        await self._producer.commit_transaction()

    async def _send(self, outputs: Sequence[OutputRecord]) -> None:
        pending = [await self._batches(place, records) for place, records in (await self._spread(outputs)).items()]
        await asyncio.gather(*(future for futures in pending for future in futures))

    async def _spread(self, outputs: Sequence[OutputRecord]) -> dict[tuple[str, int], list[OutputRecord]]:
        """Group outputs by the partition they go to, each group in order."""
        counts: dict[str, int] = {}
        groups: dict[tuple[str, int], list[OutputRecord]] = {}
        hashes = hashes_of(output.key for output in outputs if output.key is not None)
        for output in outputs:
            topic = output.topic
            if topic not in counts:
                counts[topic] = len(await self._producer.partitions_for(topic))
            partition = output.partition
            if partition is None:
                hash_ = self._place.partition if output.key is None else hashes[output.key]
                partition = hash_ % counts[topic]
            place = (topic, partition)
            if place in groups:
                groups[place].append(output)
            else:
                groups[place] = [output]
        return groups

    async def _batches(self, place: tuple[str, int], records: Sequence[OutputRecord]) -> list[asyncio.Future[Any]]:
        """Queue records as whole record batches; return the futures of their acknowledgements."""
        topic, partition = place
        futures = []
        batch = self._producer.create_batch()
        for _, key, value, timestamp, pairs, _ in records:
            headers = list(pairs)
            if batch.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:
                futures.append(await self._producer.send_batch(batch, topic, partition=partition))
                batch = self._producer.create_batch()
                # An empty batch takes a record of any size; the broker has the last word on it.
                batch.append(timestamp=timestamp, key=key, value=value, headers=headers)
        futures.append(await self._producer.send_batch(batch, topic, partition=partition))
        return futures

    async def _at(self, point: str) -> None:
        if self._probe is not None:
            await self._probe(point, self._place.partition)
