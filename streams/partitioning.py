"""Which partition a key belongs to: murmur2, as Kafka's own clients do it."""

from functools import lru_cache

from aiokafka.partitioner import murmur2

_KNOWN_KEYS = 65_536


def partition_for(key: bytes | None, partitions: int, otherwise: int) -> int:
    """Return the partition of `key` among `partitions`; a record without a key takes `otherwise`, wrapped around.

    >>> partition_for(b"acme/chat", 4, 0)
    1
    """
    return otherwise % partitions if key is None else _partition(key, partitions)


@lru_cache(maxsize=_KNOWN_KEYS)
def _partition(key: bytes, partitions: int) -> int:
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)
