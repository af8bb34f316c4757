"""Which partition a key belongs to: murmur2, as Kafka's own clients do it, of many keys at once.

A pure Python murmur2 takes ten microseconds for the id of a sample, a fifth of all that judging it costs.
Source: `org.apache.kafka.common.utils.Utils.murmur2`.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_SEED = 0x9747B28C
_FACTOR = np.uint32(0x5BD1E995)
_POSITIVE = np.uint32(0x7FFFFFFF)
_WORD = 4
"""Bytes that are mixed in at a time."""


def hashes_of(keys: Iterable[bytes]) -> Mapping[bytes, int]:
    """Return the hash of each key; modulo the number of partitions it is the partition.

    >>> hashes_of([b"acme/chat"])[b"acme/chat"] % 4
    1
    """
    by_length: dict[int, list[bytes]] = {}
    for key in set(keys):
        by_length.setdefault(len(key), []).append(key)
    return {key: hash_ for same in by_length.values() for key, hash_ in zip(same, _murmur2(same), strict=True)}


def partition_for(key: bytes | None, partitions: int, otherwise: int) -> int:
    """Return the partition of `key` among `partitions`; a record without a key takes `otherwise`, wrapped around.

    >>> partition_for(b"acme/chat", 4, 0)
    1
    """
    return otherwise % partitions if key is None else hashes_of([key])[key] % partitions


def _murmur2(keys: Sequence[bytes]) -> list[int]:
    """Return the hashes of keys that are of one length."""
    length = len(keys[0])
    whole = length // _WORD * _WORD
    table = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), length)
    hashes = np.full(len(keys), _SEED ^ length, np.uint32)
    for words in np.ascontiguousarray(table[:, :whole]).view("<u4").T:
        mixed = words * _FACTOR
        mixed ^= mixed >> 24
        hashes = hashes * _FACTOR ^ mixed * _FACTOR
    for place in range(whole, length):
        hashes ^= table[:, place].astype(np.uint32) << 8 * (place - whole)
    if whole < length:
        hashes *= _FACTOR
    hashes ^= hashes >> 13
    hashes *= _FACTOR
    hashes ^= hashes >> 15
    positive: list[int] = (hashes & _POSITIVE).tolist()
    return positive
