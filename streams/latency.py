"""How long answers took, as a histogram that is cheap to keep and read at each scrape."""

from bisect import bisect_left
from itertools import accumulate
from typing import Final

from prometheus_client.core import HistogramMetricFamily

BOUNDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper ends of the buckets in seconds: a policy engine is asked to answer within 2 ms."""


class Latency:
    """Counts durations by bucket."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, documentation: str) -> HistogramMetricFamily:
        """Return the histogram as it stands.

        >>> latency = Latency()
        >>> for seconds in (0.001, 0.0015, 60.0): latency.observe(seconds)
        >>> [sample.value for sample in latency.family("x_seconds", "X.").samples][:3]
        [0, 1, 2]
        """
        bounds = [*map(str, BOUNDS), "+Inf"]
        buckets = list(zip(bounds, accumulate(self._counts), strict=True))
        family = HistogramMetricFamily(name, documentation)
        family.add_metric([], buckets, self._sum)
        return family
