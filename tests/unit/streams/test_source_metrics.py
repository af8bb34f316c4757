import time

import pytest
from prometheus_client import CollectorRegistry

from ctrainer.agents.records import Record
from ctrainer.streams.source_metrics import StreamMetrics


def record(age_seconds: float) -> Record:
    return Record("flywheel.samples", 3, 7, int((time.time() - age_seconds) * 1000), None, None)


def test_a_batch_counts_with_the_age_of_its_first_record_when_it_is_committed() -> None:
    registry = CollectorRegistry()
    metrics = StreamMetrics.register(registry).of("screening")
    with metrics.batch([record(3.0), record(0.0)]), metrics.decision():
        pass
    found = {
        "records": registry.get_sample_value("constitutional_records_total", {"stage": "screening", "partition": "3"}),
        "within 2.5 s": registry.get_sample_value(
            "constitutional_delivery_seconds_bucket", {"stage": "screening", "le": "2.5"}
        ),
        "within 10 s": registry.get_sample_value(
            "constitutional_delivery_seconds_bucket", {"stage": "screening", "le": "10.0"}
        ),
        "decided": registry.get_sample_value("constitutional_decision_seconds_count", {"stage": "screening"}),
    }
    assert found == {"records": 2, "within 2.5 s": 0, "within 10 s": 1, "decided": 1}


def test_a_batch_that_is_not_committed_does_not_count_as_delivered() -> None:
    registry = CollectorRegistry()
    metrics = StreamMetrics.register(registry).of("screening")
    with pytest.raises(OSError, match="gone"), metrics.batch([record(0.0)]):
        raise OSError("gone")
    assert registry.get_sample_value("constitutional_delivery_seconds_count", {"stage": "screening"}) is None
