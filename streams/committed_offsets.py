"""What a consumer group has committed, read so that an error is never taken for "nothing yet"."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, Self

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from ctrainer.streams.patience import end_within

_NOTHING = -1
_CLOSE_SECONDS = 5.0


class CommittedOffsetUnknownError(KafkaError):  # type: ignore[misc] # aiokafka has no types
    """The coordinator of the group did not say what is committed: it is loading, moving, or refuses to answer."""


class OffsetsClient(Protocol):
    """The part of aiokafka's admin client that is used here."""

    async def list_consumer_group_offsets(
        self, group_id: str, *, partitions: list[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return the offsets of the partitions, -1 where nothing was committed; without those it got no answer for."""


class CommittedOffsets:
    """The committed offsets of one group.

    `AIOKafkaConsumer.committed` overlooks an error that concerns the whole group, which is what a coordinator answers
    while it loads its log after a restart, and says that nothing was committed. A source that believed it would begin
    its partition anew and publish everything twice. Here a partition without an answer is an error.
    """

    def __init__(self, *, client: OffsetsClient, group: str) -> None:
        self._client = client
        self._group = group

    @classmethod
    @asynccontextmanager
    async def connected(cls, *, bootstrap_servers: str, security: Mapping[str, Any], group: str) -> AsyncIterator[Self]:
        """Connect a client of its own for as long as the context lasts.

        Raises:
            KafkaError: no broker can be reached.
        """
        client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **security)
        try:
            await client.start()
            yield cls(client=client, group=group)
        finally:
            await end_within(_CLOSE_SECONDS, client.close(), what="closing a client")

    async def of(self, place: TopicPartition) -> int | None:
        """Return the offset committed for a partition, or None when the coordinator says that there is none.

        Raises:
            CommittedOffsetUnknownError: the coordinator did not say.
            KafkaError: the coordinator cannot be reached.
        """
        answer = await self._client.list_consumer_group_offsets(self._group, partitions=[place])
        if place not in answer:
            raise CommittedOffsetUnknownError(f"{place.topic}/{place.partition} of {self._group}")
        offset: int = answer[place].offset
        return None if offset == _NOTHING else offset
