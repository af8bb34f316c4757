"""Weights by key, looked up for thousands of keys at once."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ctrainer.agents.compliance.words import Keys

_WEIGHT_BITS = 16
_WEIGHT = np.uint64((1 << _WEIGHT_BITS) - 1)
_KEY_BITS = 64
_UNSIGNED, _SIGNED = np.uint64(_KEY_BITS - _WEIGHT_BITS), np.int64(_KEY_BITS - _WEIGHT_BITS)
"""By so many bits to the left and back goes a weight to stand alone, with its sign."""
_SALTS = 2_000


class WeightTable:
    """A table in which each key has one place, so that one look finds it or shows that it is not there.

    A place holds the upper 48 bits of its key and a signed weight of 16 bits. What another key has put there is not
    taken for one's own: the upper bits differ.
    """

    def __init__(self, entries: Keys, salt: np.uint64, bits: int) -> None:
        self._entries = entries
        self._salt = salt
        self._shift = np.uint64(_KEY_BITS - bits)

    @classmethod
    def of(cls, keys: Keys, weights: Sequence[int], *, bits: int, salts: int = _SALTS) -> Self:
        """Return the table of 2 to the power of `bits` places; tries so many ways to spread keys over them.

        Raises:
            ValueError: two keys have the same place in each way.
        """
        salted = (np.uint64(2 * number + 1) for number in range(salts))
        shift = np.uint64(_KEY_BITS - bits)
        salt = next((one for one in salted if len(np.unique((keys * one) >> shift)) == len(keys)), None)
        if salt is None:
            raise ValueError(f"weight table: got {len(keys)} keys, two of which share one of {1 << bits} places")
        spread = keys * salt
        entries = np.zeros(1 << bits, np.uint64)
        entries[spread >> shift] = (spread & ~_WEIGHT) | (np.array(weights, np.int64).astype(np.uint64) & _WEIGHT)
        return cls(entries, salt, bits)

    def weights(self, keys: Keys) -> NDArray[np.int64]:
        """Return the weight of each key, zero for one that is not in the table."""
        spread = keys * self._salt
        found = self._entries.take((spread >> self._shift).view(np.int64))
        spread ^= found
        found <<= _UNSIGNED
        weights: NDArray[np.int64] = found.view(np.int64) >> _SIGNED
        weights *= spread <= _WEIGHT
        return weights


def without_clashes(keys: Keys, *, bits: int) -> NDArray[np.bool_]:
    """Return which keys, given in the order of their importance, keep their place in a table of 2 ** `bits` places."""
    kept = np.zeros(len(keys), bool)
    kept[np.unique(keys >> np.uint64(_KEY_BITS - bits), return_index=True)[1]] = True
    return kept
