"""Numbers about one source, under the published `constitutional_` names."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ctrainer.agents.records import Record

_DELIVERY_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)
_BATCH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class StreamMetrics:
    """The metric families that all sources of a process share."""

    records: Counter
    dead_letters: Counter
    batch_seconds: Histogram
    decision_seconds: Histogram
    delivery_seconds: Histogram
    last_progress: Gauge

    @classmethod
    def register(cls, registry: CollectorRegistry) -> "StreamMetrics":
        """Make the families in `registry`."""
        return cls(
            records=Counter(
                "constitutional_records", "Records handled and committed.", ["stage", "partition"], registry=registry
            ),
            dead_letters=Counter(
                "constitutional_handler_dead_letters",
                "Records no handler could take.",
                ["stage", "reason"],
                registry=registry,
            ),
            batch_seconds=Histogram(
                "constitutional_batch_seconds",
                "Seconds from reading a batch to its commit.",
                ["stage"],
                buckets=_BATCH_SECONDS,
                registry=registry,
            ),
            decision_seconds=Histogram(
                "constitutional_decision_seconds",
                "Seconds in which a batch was decided, without reading and commit.",
                ["stage"],
                buckets=_BATCH_SECONDS,
                registry=registry,
            ),
            delivery_seconds=Histogram(
                "constitutional_delivery_seconds",
                "Seconds from the timestamp of a batch's first record to the commit of the batch.",
                ["stage"],
                buckets=_DELIVERY_SECONDS,
                registry=registry,
            ),
            last_progress=Gauge(
                "constitutional_last_progress_timestamp_seconds",
                "When a batch was committed last, in seconds since the epoch.",
                ["stage", "partition"],
                registry=registry,
            ),
        )

    def of(self, stage: str) -> "SourceMetrics":
        """Return the metrics of one stage."""
        return SourceMetrics(self, stage)


@dataclass(frozen=True, slots=True)
class SourceMetrics:
    """The metrics of one stage."""

    families: StreamMetrics
    stage: str

    @contextmanager
    def batch(self, records: Sequence[Record]) -> Iterator[None]:
        """Time a batch; count it when it ends well. How long its first record waited tells of the others, too."""
        with self.families.batch_seconds.labels(self.stage).time():
            yield
        first = records[0]
        self.families.records.labels(self.stage, first.partition).inc(len(records))
        self.families.last_progress.labels(self.stage, first.partition).set_to_current_time()
        self.families.delivery_seconds.labels(self.stage).observe(max(0.0, time.time() - first.timestamp / 1000))

    def decision(self) -> AbstractContextManager[Any]:
        """Time the decision on a batch."""
        return self.families.decision_seconds.labels(self.stage).time()

    def dead_letter(self, reason: str) -> None:
        """Count one dead letter."""
        self.families.dead_letters.labels(self.stage, reason).inc()
