from prometheus_client import CollectorRegistry

from ctrainer.agents.tally import Tally
from ctrainer.streams.judgement_metrics import JudgementMetrics
from ctrainer.streams.policy.connection import EngineConnection


def test_a_scrape_shows_the_tally_as_it_stands() -> None:
    registry, tally = CollectorRegistry(), Tally()
    connection = EngineConnection("http://127.0.0.1:1", deadline_seconds=1.0, connections=1)
    guard = EngineConnection("http://127.0.0.1:1", deadline_seconds=1.0, connections=1)
    JudgementMetrics.register(registry, tally, connection, guard)
    tally.verdicts["accept"] += 2
    tally.findings["weapons", "shadow"] += 1
    tally.answers.update(memory=3)
    connection.failures["deadline"] += 4
    connection.breaker.failed()
    tally.guard["harmful", "harmless"] += 5
    guard.failures["status-5xx"] += 6
    connection.latency.observe(0.0015)
    connection.latency.observe(0.7)
    found = {
        "accepted": registry.get_sample_value("constitutional_decisions_total", {"verdict": "accept"}),
        "shadow": registry.get_sample_value(
            "constitutional_findings_total", {"principle": "weapons", "mode": "shadow"}
        ),
        "memory": registry.get_sample_value("constitutional_policy_answers_total", {"source": "memory"}),
        "deadline": registry.get_sample_value("constitutional_policy_failures_total", {"kind": "deadline"}),
        "open": registry.get_sample_value("constitutional_policy_circuit_open"),
        "within 2 ms": registry.get_sample_value("constitutional_policy_seconds_bucket", {"le": "0.002"}),
        "answered": registry.get_sample_value("constitutional_policy_seconds_count"),
        "only the guard": registry.get_sample_value(
            "constitutional_guard_turns_total", {"guard": "harmful", "score": "harmless"}
        ),
        "errors": registry.get_sample_value("constitutional_guard_failures_total", {"kind": "status-5xx"}),
    }
    assert found == {
        "accepted": 2,
        "shadow": 1,
        "memory": 3,
        "deadline": 4,
        "open": 0,
        "within 2 ms": 1,
        "answered": 2,
        "only the guard": 5,
        "errors": 6,
    }
