"""When a session tells how far it is: often at first, and never so often that it costs anything."""

from dataclasses import dataclass, field

_SECONDS = 1.0
_SHARE = 0.01


@dataclass(slots=True)
class LivePace:
    """Watches the steps of one process: at most one is told a second, and of a long session one in each hundredth.

    So a session of ten hours tells about 700 times, and nobody who reads a topic later has to read one for each step.
    """

    began: float
    first: int
    _told: float = field(default=float("-inf"), init=False)

    def is_due(self, now: float) -> bool:
        """Return whether a step that ends `now` (seconds of any clock) is told, and if so remember that it is.

        >>> pace = LivePace(began=0.0, first=0)
        >>> [now for now in range(0, 1_000) if pace.is_due(now / 10)][:4]
        [0, 10, 20, 30]
        """
        if now - self._told < max(_SECONDS, _SHARE * (now - self.began)):
            return False
        self._told = now
        return True

    def steps_per_second(self, step: int, now: float) -> float:
        """Return how many steps this process did a second so far.

        >>> LivePace(began=10.0, first=8).steps_per_second(28, 20.0)
        2.0
        """
        return (step - self.first) / (now - self.began) if now > self.began else 0.0
