"""Weights by key, looked up for thousands of keys at once."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ctrainer.agents.compliance.words import Keys

_WEIGHT_BITS = 16
_WEIGHT = np.uint64((1 << _WEIGHT_BITS) - 1)
_KEY_BITS = 64
_ONE, _HALF, _BLOCK_BITS, _IN_BLOCK = (np.uint64(number) for number in (1, 32, 5, 31))
_SALTS = 2_000
Weights = NDArray[np.int16]


class WeightTable:
    """A table in which each key has one place, so that one look finds it or shows that it is not there.

    An entry is the upper 48 bits of its key and a signed weight of 16 bits. What another key has put there is not taken
    for one's own: the upper bits differ. Only places that are taken have an entry: for each block of 32 places a number
    says in its lower half which are taken, and in its upper half how many are taken before. A table that is mostly
    empty then stays in a core's cache.
    """

    def __init__(self, entries: Keys, blocks: Keys, salt: np.uint64, bits: int) -> None:
        self._entries = entries
        self._blocks = blocks
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
        entries = (spread & ~_WEIGHT) | (np.array(weights, np.int64).astype(np.uint64) & _WEIGHT)
        # A look at a place after all that are taken ends at a last entry of nobody.
        return cls(np.append(np.sort(entries), np.uint64(0)), _blocks(spread >> shift, bits), salt, bits)

    def weights(self, keys: Keys) -> Weights:
        """Return the weight of each key, zero for one that is not in the table."""
        spread = keys if self._salt == _ONE else keys * self._salt
        places = spread >> self._shift
        blocks = self._blocks.take((places >> _BLOCK_BITS).view(np.int64))
        places &= _IN_BLOCK
        before = np.left_shift(_ONE, places, out=places)
        before -= _ONE
        before &= blocks
        blocks >>= _HALF
        blocks += np.bitwise_count(before)
        found = self._entries.take(blocks.view(np.int64))
        weights = found.astype(np.int16)  # the lower bits of an entry
        found ^= spread
        weights *= found <= _WEIGHT
        return weights


def _blocks(places: Keys, bits: int) -> Keys:
    """Return for each block of places which are taken, and how many are taken before it."""
    blocks = np.zeros(max(1, 1 << bits >> int(_BLOCK_BITS)), np.uint64)
    numbers = (places >> _BLOCK_BITS).astype(np.int64)
    np.bitwise_or.at(blocks, numbers, _ONE << (places & _IN_BLOCK))
    taken = np.bincount(numbers, minlength=len(blocks))
    before: Keys = (np.cumsum(taken) - taken).astype(np.uint64) << _HALF
    return blocks | before


def without_clashes(keys: Keys, *, bits: int) -> NDArray[np.bool_]:
    """Return which keys, given in the order of their importance, keep their place in a table of 2 ** `bits` places."""
    kept = np.zeros(len(keys), bool)
    kept[np.unique(keys >> np.uint64(_KEY_BITS - bits), return_index=True)[1]] = True
    return kept
