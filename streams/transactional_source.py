"""Brings the records of one topic to one stage, exactly once: membership in the group, and one owner per partition."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from mode import Service

from ctrainer.streams.committed_offsets import CommittedOffsets
from ctrainer.streams.partition_owner import PartitionOwner, Phase, Restore
from ctrainer.streams.patience import end_within
from ctrainer.streams.source_metrics import SourceMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.transactional_outlet import Probe, TransactionalOutlet

_REJOIN_SECONDS = 0.5
_LEAVE_SECONDS = 5.0
_NEVER_MS = 2**31 - 1
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What a source reads and as whom."""

    application: str
    bootstrap_servers: str
    topic: str
    group: str
    security: Mapping[str, Any] = field(default_factory=dict)
    max_records: int = 1_000
    session_timeout_ms: int = 10_000


class TransactionalSource(Service):
    """A member of a consumer group whose partitions are each served by a `PartitionOwner`.

    An owner that finds itself fenced makes the source leave the group and join it anew: it never goes on with what it
    remembers.
    """

    def __init__(
        self,
        *,
        subscription: Subscription,
        stage: Stage,
        metrics: SourceMetrics,
        restore: Restore | None = None,
        probe: Probe | None = None,
    ) -> None:
        super().__init__()
        self.subscription = subscription
        self.stage = stage
        self.joined = False
        self._metrics = metrics
        self._restore = restore
        self._probe = probe
        self._owners: dict[TopicPartition, PartitionOwner] = {}
        self._epoch = 0
        self._lost = asyncio.Event()

    @property
    def owners(self) -> tuple[PartitionOwner, ...]:
        """The owners of the partitions assigned now."""
        return tuple(self._owners.values())

    @Service.task
    async def _membership(self) -> None:
        while not self.should_stop:
            try:
                await self._one_membership()
            except (KafkaError, OSError) as error:
                _LOG.warning("%s: %s; joining again", self.subscription.group, type(error).__name__)
            await self.sleep(_REJOIN_SECONDS)

    async def _one_membership(self) -> None:
        """Join the group, serve what is assigned, and leave when an owner was fenced or the service stops."""
        self._lost.clear()
        async with self._committed_offsets() as offsets:
            consumer = self._consumer()
            await consumer.start()
            try:
                consumer.subscribe([self.subscription.topic], listener=_Listener(self, consumer, offsets))
                await self.wait_first(self._lost.wait(), self._stopped.wait())
            finally:
                self.joined = False
                await self._give_up()
                # Brokers that do not answer learn of our leaving by the session time-out.
                await end_within(_LEAVE_SECONDS, consumer.stop(), what="leaving the group")

    async def assigned(
        self, consumer: AIOKafkaConsumer, offsets: CommittedOffsets, places: set[TopicPartition]
    ) -> None:
        """Take over partitions, in an epoch of their own; none while leaving: nobody would give them up again."""
        await self._give_up()
        if self._lost.is_set() or self.should_stop:
            return
        self._epoch += 1
        self._owners = {place: self._owner(consumer, offsets, place) for place in sorted(places)}
        self.joined = True

    async def revoked(self) -> None:
        """Give up all partitions before anyone else can be given them."""
        await self._give_up()

    async def _give_up(self) -> None:
        owners, self._owners = self._owners, {}
        await asyncio.gather(*(owner.stop() for owner in owners.values()))

    def _owner(self, consumer: AIOKafkaConsumer, offsets: CommittedOffsets, place: TopicPartition) -> PartitionOwner:
        return PartitionOwner(
            consumer=consumer,
            committed_offsets=offsets,
            place=place,
            epoch=self._epoch,
            stage=self.stage,
            make_outlet=self._outlet,
            restore=self._restore,
            max_records=self.subscription.max_records,
            metrics=self._metrics,
            probe=self._probe,
            lost=self._lost.set,
        )

    def _outlet(self, place: TopicPartition) -> TransactionalOutlet:
        return TransactionalOutlet(
            application=self.subscription.application,
            bootstrap_servers=self.subscription.bootstrap_servers,
            security=self.subscription.security,
            place=place,
            group=self.subscription.group,
            probe=self._probe,
        )

    def _committed_offsets(self) -> AbstractAsyncContextManager[CommittedOffsets]:
        return CommittedOffsets.connected(
            bootstrap_servers=self.subscription.bootstrap_servers,
            security=self.subscription.security,
            group=self.subscription.group,
        )

    def _consumer(self) -> AIOKafkaConsumer:
        subscription = self.subscription
        return AIOKafkaConsumer(
            bootstrap_servers=subscription.bootstrap_servers,
            group_id=subscription.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=subscription.session_timeout_ms,
            heartbeat_interval_ms=max(300, subscription.session_timeout_ms // 5),
            max_partition_fetch_bytes=16 * 1024 * 1024,
            fetch_max_wait_ms=100,
            # Else a batch of five minutes makes the client leave the group until it fetches, which nobody does there.
            max_poll_interval_ms=_NEVER_MS,
            **subscription.security,
        )

    def is_serving(self, now: float, patience_seconds: float) -> bool:
        """Return whether the group was joined and every assigned partition has lately made progress or had no lag.

        `now` is on the monotonic clock. An idle partition polls, which counts; a stuck one does neither.
        """
        return self.joined and all(
            owner.phase in {Phase.FETCHING, Phase.DELIVERING} and now - owner.progressed_at < patience_seconds
            for owner in self._owners.values()
        )


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """Passes the group's decisions on to the source."""

    def __init__(self, source: TransactionalSource, consumer: AIOKafkaConsumer, offsets: CommittedOffsets) -> None:
        self._source = source
        self._consumer = consumer
        self._offsets = offsets

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002 - aiokafka's signature
        await self._source.revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self._source.assigned(self._consumer, self._offsets, assigned)
