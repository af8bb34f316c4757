"""What the control-plane agents ask of the outside: reads of topics, nothing else."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from ctrainer.agents.records import Record
from ctrainer.schemas.datasets import OffsetRange


class Topics(Protocol):
    """Committed records of topics, read up to ends that are known before the first one."""

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """Return the end of each partition of `topic`."""
        ...

    def read_topic(self, topic: str, partition: int | None = None) -> AsyncIterator[Record]:
        """Yield everything the topic (or one partition of it) holds now, each partition in order."""
        ...

    def read_ranges(self, ranges: Sequence[OffsetRange]) -> AsyncIterator[Record]:
        """Yield the records of ranges, range by range, in offset order within each."""
        ...
