"""Leaves a service alone that failed several times in a row, and tries it again later with one call."""

from collections.abc import Callable
from time import monotonic

FAILURES = 3
PAUSE_SECONDS = 5.0


class CircuitBreaker:
    """Closed until `failures` calls failed in a row; while it is open, one call each `pause_seconds` is admitted."""

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
        """Whether the service is left alone, but for a call now and then."""
        return self._failures >= self._most_failures

    def admits(self) -> bool:
        """Return whether a call may be made now. What asks and is admitted makes the call."""
        if not self.is_open:
            return True
        if self._clock() < self._open_until:
            return False
        # The pause begins anew here, so that nobody follows this call before it has failed or succeeded.
        self._open_until = self._clock() + self._pause_seconds
        return True

    def succeeded(self) -> None:
        """Note a call that was answered."""
        self._failures = 0

    def failed(self) -> None:
        """Note a call that was not."""
        self._failures += 1
        if self.is_open:
            self._open_until = self._clock() + self._pause_seconds
