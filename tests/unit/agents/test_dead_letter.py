from hashlib import sha256

from ctrainer.agents.dead_letter import dead_letter, dead_reference
from ctrainer.agents.records import Record

RECORD = Record(
    "flywheel.samples", 3, 42, 1_000, b"acme/chat", b"\xff not text", (("traceparent", b"00-a"), ("x", b"\xfe"))
)


def test_value_and_headers_are_untouched_and_come_first() -> None:
    letter = dead_letter(RECORD, stage="screening", reason="not-utf8", message="value: not UTF-8")
    assert letter.value is RECORD.value
    assert letter.headers[:2] == RECORD.headers
    assert letter.timestamp == RECORD.timestamp


def test_it_says_where_the_record_came_from_and_why() -> None:
    letter = dead_letter(RECORD, stage="screening", reason="not-utf8", message="value: not UTF-8")
    assert (letter.topic, letter.key) == ("dead-letters", b"flywheel.samples/3/42")
    assert dict(letter.headers) == {
        "traceparent": b"00-a",
        "x": b"\xfe",
        "dlq.stage": b"screening",
        "dlq.reason": b"not-utf8",
        "dlq.error.message": b"value: not UTF-8",
        "dlq.src.topic": b"flywheel.samples",
        "dlq.src.partition": b"3",
        "dlq.src.offset": b"42",
        "dlq.src.timestamp": b"1000",
        "dlq.src.key": b"acme/chat",
    }


def test_a_record_without_key_has_no_key_header() -> None:
    letter = dead_letter(RECORD._replace(key=None), stage="s", reason="r", message="m")
    assert "dlq.src.key" not in dict(letter.headers)


def test_the_same_record_gives_the_same_letter() -> None:
    first, second = (dead_letter(RECORD, stage="s", reason="r", message="m") for _ in range(2))
    assert first == second


def test_a_reference_names_the_record_and_holds_none_of_its_bytes() -> None:
    huge = RECORD._replace(value=b"v" * 100, key=b"k" * 100, headers=(("h", b"x" * 100),))
    letter = dead_reference(huge, stage="screening", reason="output-too-large", message="")
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"flywheel.samples/3/42", None)
    assert headers["dlq.omitted.bytes"] == b"100"
    assert headers["dlq.omitted.sha256"] == sha256(b"v" * 100).hexdigest().encode()
    assert headers.keys() & {"h", "dlq.src.key"} == set()
