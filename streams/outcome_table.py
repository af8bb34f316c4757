"""What is known of each record of a topic: whether it is there, and the last outcome of it. Five bytes for a record."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

Place = tuple[int, int]
"""Partition and offset."""

MOST_OUTCOMES = 126
_ABSENT, _NO_OUTCOME = 0, 1
_TWICE = 0x80
_BITS = 16
_BLOCK = 1 << _BITS
_MOST_ATTEMPTS = 2**32 - 1


@dataclass(slots=True)
class _Block:
    """Neighbouring offsets of a partition: a state for each, and the attempt that its outcome is of."""

    states: bytearray = field(default_factory=lambda: bytearray(_BLOCK))
    attempts: "array[int]" = field(default_factory=lambda: array("I", [0]) * _BLOCK)


@dataclass(slots=True)
class OutcomeTable:
    """Records are added first, then their outcomes, as numbers below `MOST_OUTCOMES`, in any order.

    >>> table = OutcomeTable()
    >>> table.add((0, 7))
    >>> table.note((0, 7), attempt=1, outcome=5)
    >>> table.note((0, 7), attempt=0, outcome=4)
    >>> list(table)
    [((0, 7), 5, False)]
    """

    _blocks: dict[Place, _Block] = field(default_factory=dict)

    def add(self, place: Place) -> None:
        """Add a record."""
        partition, offset = place
        number = partition, offset >> _BITS
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = _Block()
        block.states[offset % _BLOCK] = _NO_OUTCOME

    def note(self, place: Place, *, attempt: int, outcome: int) -> None:
        """Add an outcome of a record; of one that was not added, nothing is kept. The last attempt counts."""
        partition, offset = place
        block, index = self._blocks.get((partition, offset >> _BITS)), offset % _BLOCK
        if block is None or block.states[index] == _ABSENT:
            return
        twice, known = block.states[index] & _TWICE, block.states[index] & ~_TWICE
        has_outcome, attempt = known != _NO_OUTCOME, min(attempt, _MOST_ATTEMPTS)
        if has_outcome and block.attempts[index] == attempt:
            twice = _TWICE
        if not has_outcome or attempt >= block.attempts[index]:
            known, block.attempts[index] = outcome + 2, attempt
        block.states[index] = known | twice

    def __iter__(self) -> Iterator[tuple[Place, int | None, bool]]:
        """Yield each record in order, its last outcome, and whether two outcomes are of one attempt."""
        for (partition, number), block in sorted(self._blocks.items()):
            for index, state in enumerate(block.states):
                if state != _ABSENT:
                    known = state & ~_TWICE
                    place = partition, (number << _BITS) + index
                    yield place, None if known == _NO_OUTCOME else known - 2, bool(state & _TWICE)
