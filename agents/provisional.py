"""State that counts only once the batch it came from is known to be committed."""

from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State")


@dataclass(slots=True)
class Provisional(Generic[State]):
    """The state of one partition.

    A batch whose transaction failed, or that is halved around a poison record, comes again. So what a batch makes of
    the state is adopted only when a later batch shows that it was committed; the same offsets again discard it.
    """

    adopted: State
    _proposed: State | None = None
    _proposed_end: int = -1

    def before(self, first_offset: int) -> State:
        """Return the state that a batch starting at `first_offset` finds."""
        if self._proposed is not None and first_offset >= self._proposed_end:
            self.adopted = self._proposed
        self._proposed = None
        return self.adopted

    def propose(self, state: State, *, next_offset: int) -> None:
        """Note the state after a batch that ends before `next_offset`."""
        self._proposed = state
        self._proposed_end = next_offset
