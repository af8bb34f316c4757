"""What every stage handles: batches of Kafka records in, output records back.

A stage is one callable, `Handler`. It decides and returns; the source that called it delivers its outputs and the
input offsets in one transaction. So a handler never sends, commits or retries, and is a pure function of its batch
(and of state that it can rebuild from its own outputs).
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Headers: TypeAlias = tuple[tuple[str, bytes], ...]


class Record(NamedTuple):
    """One consumed Kafka record, bytes untouched.

    A named tuple, as `OutputRecord` is: the engine makes three of these for each sample, and a frozen dataclass takes
    four times as long to make.

    `timestamp` is the record's own timestamp in milliseconds since the epoch: the only clock a handler may use.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBatch:
    """Consecutive records of one partition, fetched under one assignment `epoch` and valid only in it."""

    topic: str
    partition: int
    epoch: int
    records: tuple[Record, ...]


class OutputRecord(NamedTuple):
    """One record to publish. `partition=None` lets the key decide (murmur2, as Kafka's own clients do)."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers = ()
    partition: int | None = None


Handler: TypeAlias = Callable[[RecordBatch], Awaitable[Sequence[OutputRecord]]]
"""An exception makes the source halve the batch until the bad record stands alone and becomes a dead letter."""
