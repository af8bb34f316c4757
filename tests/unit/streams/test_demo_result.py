import orjson

from ctrainer.streams.demo_result import SampleCounts, count_outcomes


def test_outcomes_are_counted_by_kind() -> None:
    counts = count_outcomes(["accept", "accept", "redact", "reject", "dead"], sent=5, duplicates=1)
    assert counts.balanced
    assert orjson.loads(counts.model_dump_json(by_alias=True)) == {
        "in": 5,
        "accepted": 2,
        "redacted": 1,
        "rejected": 1,
        "dead": 1,
        "duplicates": 1,
    }


def test_a_lost_sample_shows_as_imbalance() -> None:
    counts: SampleCounts = count_outcomes(["accept"], sent=2, duplicates=0)
    assert not counts.balanced
