"""One assigned input partition, from the moment it is taken over until it is given up: one assignment epoch.

A batch lives and dies inside its owner. What was fetched under one epoch can never be published under the next, because
the next epoch is another owner with another producer that starts at the committed offset.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from ctrainer.agents.dead_letter import dead_letter, dead_reference
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.streams.committed_offsets import CommittedOffsets
from ctrainer.streams.patience import end_within
from ctrainer.streams.source_metrics import SourceMetrics
from ctrainer.streams.stage import HandlerFailedError, Stage, WorldFailedError
from ctrainer.streams.topic_reader import to_record
from ctrainer.streams.transactional_outlet import OutputTooLargeError, Probe, TransactionalOutlet

Restore = Callable[[int, int], Awaitable[None]]
"""Rebuilds a stage's state for a partition from its own outputs; called with the partition and the committed offset."""

DeadLetter = Callable[..., OutputRecord]
"""Makes the dead letter of a record: whole, or as a reference."""

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


@dataclass(frozen=True, slots=True)
class Refusals:
    """How often the outputs of the record at one offset, standing alone, were refused for their size."""

    offset: int = -1
    times: int = 0

    def another(self, offset: int) -> "Refusals":
        """Return the refusals after one more."""
        return Refusals(offset, self.of(offset) + 1)

    def of(self, offset: int) -> int:
        """Return how often the record at `offset` was refused."""
        return self.times if offset == self.offset else 0


class PartitionOwner:
    """Fetches, decides and publishes for one partition until it is stopped or finds itself fenced.

    Whenever a transaction fails, nothing in memory is trusted any more: a new producer fences the old one, the
    committed offset is read again, the stage's state is restored, and reading goes on from there.
    """

    def __init__(
        self,
        *,
        consumer: AIOKafkaConsumer,
        committed_offsets: CommittedOffsets,
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
        self._committed_offsets = committed_offsets
        self._epoch = epoch
        self._stage = stage
        self._make_outlet = make_outlet
        self._restore = restore
        self._max_records = max_records
        self._batch_records = max_records
        self._refusals = Refusals()
        self._backoff = _FIRST_BACKOFF_SECONDS
        self._answered_at: int | None = None
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
        while not self._stopping:
            outlet = self._make_outlet(self.place)
            try:
                await self._take_over(outlet)
                await self._serve(outlet)
            except OutputTooLargeError:
                self.phase = Phase.ACQUIRING
            except (ProducerFenced, InvalidProducerEpoch):
                _LOG.warning("%s/%d: fenced by another owner", *self.place)
                self.phase = Phase.LOST
                self._lost()
                return
            except (KafkaError, WorldFailedError) as error:
                _LOG.warning("%s/%d: %s; trying again in %.1f s", *self.place, type(error).__name__, self._backoff)
                self.phase = Phase.ACQUIRING
                await asyncio.sleep(self._backoff)
                self._backoff = min(2 * self._backoff, _LONGEST_BACKOFF_SECONDS)
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
        committed = await self._committed_offsets.of(self.place)
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
            fetched = await self._consumer.getmany(self.place, timeout_ms=_FETCH_MS, max_records=self._batch_records)
            records = tuple(map(to_record, fetched.get(self.place, ())))
            self._note_answer(bool(records))
            if records and not self._stopping:
                self.phase = Phase.DELIVERING
                await self._at("after-read")
                await self._deliver(outlet, records)
            self._backoff = _FIRST_BACKOFF_SECONDS

    def _note_answer(self, has_records: bool) -> None:  # noqa: FBT001 - private, one caller
        """Note progress: records, or an answer of the broker that there are none. Silence is no progress."""
        answered_at = self._consumer.last_poll_timestamp(self.place)
        if has_records or answered_at != self._answered_at:
            self.progressed_at = time.monotonic()
        self._answered_at = answered_at

    async def _deliver(self, outlet: TransactionalOutlet, records: tuple[Record, ...]) -> None:
        with self._metrics.batch(records):
            outputs = self._given_up(records) or await self._decide(records)
            await self._at("after-decide")
            try:
                await outlet.publish(outputs, records[-1].offset + 1)
            except OutputTooLargeError:
                self._note_refusal(records)
                raise
        self._batch_records = min(2 * self._batch_records, self._max_records)

    def _note_refusal(self, records: tuple[Record, ...]) -> None:
        """Read less from here on, until the record whose outputs are too large stands alone."""
        self._batch_records = max(1, len(records) // 2)
        if len(records) == 1:
            self._refusals = self._refusals.another(records[0].offset)

    def _given_up(self, records: tuple[Record, ...]) -> Sequence[OutputRecord]:
        """Return the dead letter of a record that stands alone and whose outputs were refused, else nothing.

        When the dead letter was refused as well, only a reference to the record is left to publish.
        """
        times = self._refusals.of(records[0].offset) if len(records) == 1 else 0
        if times == 0:
            return ()
        return [self._dead(records[0], "output-too-large", "", make=dead_letter if times == 1 else dead_reference)]

    async def _decide(self, records: tuple[Record, ...]) -> Sequence[OutputRecord]:
        """Return the outputs of a batch; a record that the stage cannot handle becomes a dead letter among them."""
        batch = RecordBatch(topic=self.place.topic, partition=self.place.partition, epoch=self._epoch, records=records)
        try:
            with self._metrics.decision():
                return await self._stage.decide(batch)
        except HandlerFailedError as error:
            if len(records) == 1:
                return [self._dead(records[0], "handler-failed", type(error.__cause__).__name__)]
        middle = len(records) // 2
        return [*await self._decide(records[:middle]), *await self._decide(records[middle:])]

    def _dead(self, record: Record, reason: str, message: str, *, make: DeadLetter = dead_letter) -> OutputRecord:
        _LOG.error("%s/%d/%d: %s %s", record.topic, record.partition, record.offset, reason, message)
        self._metrics.dead_letter(reason)
        return make(record, stage=self._stage.name, reason=reason, message=message)

    async def _at(self, point: str) -> None:
        if self._probe is not None:
            await self._probe(point, self.place.partition)
