"""One assigned input partition, from the moment it is taken over until it is given up: one assignment epoch.

A batch lives and dies inside its owner. What was fetched under one epoch can never be published under the next, because
the next epoch is another owner with another producer that starts at the committed offset.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.streams.patience import end_within
from ctrainer.streams.source_metrics import SourceMetrics
from ctrainer.streams.stage import HandlerFailedError, Stage, WorldFailedError
from ctrainer.streams.topic_reader import to_record
from ctrainer.streams.transactional_outlet import OutputTooLargeError, Probe, TransactionalOutlet

Restore = Callable[[int, int], Awaitable[None]]
"""Rebuilds a stage's state for a partition from its own outputs; called with the partition and the committed offset."""

_FETCH_MS = 500
_FINISH_SECONDS = 15.0
_CLOSE_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


class Phase(Enum):
    """Where an owner is."""

    ACQUIRING = "acquiring"
    FETCHING = "fetching"
    DELIVERING = "delivering"
    LOST = "lost"
    STOPPED = "stopped"


class PartitionOwner:
    """Fetches, decides and publishes for one partition until it is stopped or finds itself fenced.

    Whenever a transaction fails, nothing in memory is trusted any more: a new producer fences the old one, the
    committed offset is read again, the stage's state is restored, and reading goes on from there.
    """

    def __init__(
        self,
        *,
        consumer: AIOKafkaConsumer,
        place: TopicPartition,
        epoch: int,
        stage: Stage,
        make_outlet: Callable[[TopicPartition], TransactionalOutlet],
        restore: Restore | None,
        max_records: int,
        metrics: SourceMetrics,
        probe: Probe | None,
        lost: Callable[[], None],
    ) -> None:
        self.place = place
        self.phase = Phase.ACQUIRING
        self.progressed_at = time.monotonic()
        self._consumer = consumer
        self._epoch = epoch
        self._stage = stage
        self._make_outlet = make_outlet
        self._restore = restore
        self._max_records = max_records
        self._metrics = metrics
        self._probe = probe
        self._lost = lost
        self._stopping = False
        self._task = asyncio.create_task(self._run(), name=f"{stage.name}-{place.topic}-{place.partition}")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End ownership: a batch that is being published is finished first, anything else is dropped.

        A batch that cannot be finished in time is dropped too: its transaction is aborted by the next owner.
        """
        self._stopping = True
        if self.phase is Phase.DELIVERING:
            await asyncio.wait([self._task], timeout=_FINISH_SECONDS)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.phase = Phase.STOPPED

    async def _run(self) -> None:
        backoff = _FIRST_BACKOFF_SECONDS
        while not self._stopping:
            outlet = self._make_outlet(self.place)
            try:
                await self._take_over(outlet)
                backoff = _FIRST_BACKOFF_SECONDS
                await self._serve(outlet)
            except (ProducerFenced, InvalidProducerEpoch):
                _LOG.warning("%s/%d: fenced by another owner", *self.place)
                self.phase = Phase.LOST
                self._lost()
                return
            except (KafkaError, WorldFailedError) as error:
                _LOG.warning("%s/%d: %s; trying again in %.1f s", *self.place, type(error).__name__, backoff)
                self.phase = Phase.ACQUIRING
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, _LONGEST_BACKOFF_SECONDS)
            finally:
                # A producer that cannot deliver what it holds is left: its transaction will be aborted.
                await end_within(_CLOSE_SECONDS, outlet.stop(), what="closing a producer")

    def _ended(self, task: "asyncio.Task[None]") -> None:
        """Give the partition back when this owner ended by a fault of its own, so that another one can be made."""
        if self._stopping or self.phase is Phase.LOST:
            return
        error = None if task.cancelled() else task.exception()
        _LOG.error("%s/%d: owner ended by itself", *self.place, exc_info=error)
        self.phase = Phase.LOST
        self._lost()

    async def _take_over(self, outlet: TransactionalOutlet) -> None:
        """Fence the previous owner, and only then read where it stopped."""
        await outlet.start()
        committed = await self._consumer.committed(self.place)
        if committed is None:
            await self._consumer.seek_to_beginning(self.place)
            committed = await self._consumer.position(self.place)
        else:
            self._consumer.seek(self.place, committed)
        if self._restore is not None:
            await self._restore(self.place.partition, committed)

    async def _serve(self, outlet: TransactionalOutlet) -> None:
        while not self._stopping:
            self.phase = Phase.FETCHING
            fetched = await self._consumer.getmany(self.place, timeout_ms=_FETCH_MS, max_records=self._max_records)
            records = tuple(map(to_record, fetched.get(self.place, ())))
            self.progressed_at = time.monotonic()
            if records and not self._stopping:
                self.phase = Phase.DELIVERING
                await self._at("after-read")
                await self._deliver(outlet, records)

    async def _deliver(self, outlet: TransactionalOutlet, records: tuple[Record, ...]) -> None:
        with self._metrics.batch(self.place.partition, len(records)):
            outputs = await self._decide(records)
            await self._at("after-decide")
            try:
                await outlet.publish(outputs, records[-1].offset + 1)
            except OutputTooLargeError:
                await self._deliver_smaller(outlet, records)

    async def _deliver_smaller(self, outlet: TransactionalOutlet, records: tuple[Record, ...]) -> None:
        """Publish the halves on their own; a single record whose outputs do not fit becomes a dead letter."""
        if len(records) == 1:
            await outlet.publish([self._dead(records[0], "output-too-large", "")], records[0].offset + 1)
            return
        if self._restore is not None:
            # The stage may have adopted part of what was just given up.
            await self._restore(self.place.partition, records[0].offset)
        middle = len(records) // 2
        await self._deliver(outlet, records[:middle])
        await self._deliver(outlet, records[middle:])

    async def _decide(self, records: tuple[Record, ...]) -> Sequence[OutputRecord]:
        """Return the outputs of a batch; a record that the stage cannot handle becomes a dead letter among them."""
        batch = RecordBatch(topic=self.place.topic, partition=self.place.partition, epoch=self._epoch, records=records)
        try:
            return await self._stage.decide(batch)
        except HandlerFailedError as error:
            if len(records) == 1:
                return [self._dead(records[0], "handler-failed", type(error.__cause__).__name__)]
        middle = len(records) // 2
        return [*await self._decide(records[:middle]), *await self._decide(records[middle:])]

    def _dead(self, record: Record, reason: str, message: str) -> OutputRecord:
        _LOG.error("%s/%d/%d: %s %s", record.topic, record.partition, record.offset, reason, message)
        self._metrics.dead_letter(reason)
        return dead_letter(record, stage=self._stage.name, reason=reason, message=message)

    async def _at(self, point: str) -> None:
        if self._probe is not None:
            await self._probe(point, self.place.partition)
