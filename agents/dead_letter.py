"""What becomes of a record that cannot be handled: its bytes untouched, with a reason that a machine can read."""

from hashlib import sha256

from ctrainer.agents.records import Headers, OutputRecord, Record
from ctrainer.schemas.identity import source_reference
from ctrainer.schemas.topics import DEAD_LETTERS


def dead_letter(record: Record, *, stage: str, reason: str, message: str) -> OutputRecord:
    """Return the dead letter of a record: the same one whenever the record is handled again.

    Value and headers are the original's. The key is the source reference; where the record came from, which stage gave
    it up and why stand in `dlq.` headers. `message` must not hold any of the record's text.
    """
    source_key = () if record.key is None else (("dlq.src.key", record.key),)
    return _letter(
        record, record.value, (*record.headers, *_reasons(stage, reason, message), *_source(record), *source_key)
    )


def dead_reference(record: Record, *, stage: str, reason: str, message: str) -> OutputRecord:
    """Return the dead letter of a record whose own bytes no topic takes: where it lies, its size and its digest.

    A compressed record can be many times as large as its topic allows once it is read. Its bytes stay in the source
    topic, which `dlq.src.` headers name, for as long as that keeps them.
    """
    value = record.value or b""
    omitted: Headers = (
        ("dlq.omitted.bytes", str(len(value)).encode()),
        ("dlq.omitted.sha256", sha256(value).hexdigest().encode()),
    )
    return _letter(record, None, (*_reasons(stage, reason, message), *_source(record), *omitted))


def _letter(record: Record, value: bytes | None, headers: Headers) -> OutputRecord:
    key = source_reference(record.topic, record.partition, record.offset).encode()
    return OutputRecord(topic=DEAD_LETTERS, key=key, value=value, timestamp=record.timestamp, headers=headers)


def _reasons(stage: str, reason: str, message: str) -> Headers:
    return (("dlq.stage", stage.encode()), ("dlq.reason", reason.encode()), ("dlq.error.message", message.encode()))


def _source(record: Record) -> Headers:
    return (
        ("dlq.src.topic", record.topic.encode()),
        ("dlq.src.partition", str(record.partition).encode()),
        ("dlq.src.offset", str(record.offset).encode()),
        ("dlq.src.timestamp", str(record.timestamp).encode()),
    )
