"""Leaves a service alone that failed several times in a row, and tries it again later with one call."""

from collections.abc import Callable
from time import monotonic

FAILURES = 3
PAUSE_SECONDS = 5.0


class CircuitBreaker:
    """Closed until `failures` calls failed in a row; open for `pause_seconds`; then one call decides."""

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        pause_seconds: float = PAUSE_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._most_failures = failures
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the service is left alone now."""
        return self._clock() < self._open_until

    def succeeded(self) -> None:
        """Note a call that was answered."""
        self._failures = 0

    def failed(self) -> None:
        """Note a call that was not."""
        self._failures += 1
        if self._failures >= self._most_failures:
            self._open_until = self._clock() + self._pause_seconds
