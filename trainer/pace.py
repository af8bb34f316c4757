"""How fast a session trains: the mean time of its steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """The steps of this process so far, and the seconds they took; on a GPU those until their work was handed over."""

    steps: int = 0
    total: float = 0.0

    @contextmanager
    def step(self) -> Iterator[None]:
        """Take the time of one step."""
        began = time.monotonic()
        yield
        self.total += time.monotonic() - began
        self.steps += 1

    def seconds(self, steps: int) -> float:
        """Return how long some steps will take: for ever while none is known.

        >>> Pace(steps=4, total=2.0).seconds(3), Pace().seconds(1), Pace().seconds(0)
        (1.5, inf, 0.0)
        """
        if steps == 0:
            return 0.0
        return steps * self.total / self.steps if self.steps else float("inf")
