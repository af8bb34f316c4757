import orjson

from ctrainer.agents.records import Record
from ctrainer.streams.topic_tail import as_json


def test_a_json_value_is_shown_as_json_with_its_place_and_headers() -> None:
    record = Record("audit.events", 1, 7, 1_000, b"acme", b'{"a":1}', (("schema-version", b"1"),))
    assert orjson.loads(as_json(record)) == {
        "topic": "audit.events",
        "partition": 1,
        "offset": 7,
        "timestamp": 1_000,
        "key": "acme",
        "headers": {"schema-version": "1"},
        "value": {"a": 1},
    }


def test_bytes_that_are_no_json_are_shown_whole_as_base64_and_a_missing_value_as_null() -> None:
    record = Record("dead-letters", 0, 0, 0, b"\xff", b"\xfe\x00", ())
    line = orjson.loads(as_json(record))
    assert (line["key"], line["value_base64"]) == ("\\xff", "/gA=")
    assert orjson.loads(as_json(record._replace(value=None, key=None)))["value"] is None
