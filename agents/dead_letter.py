"""What becomes of a record that cannot be handled: its bytes untouched, with a reason that a machine can read."""

from ctrainer.agents.records import OutputRecord, Record
from ctrainer.schemas.identity import source_reference
from ctrainer.schemas.topics import DEAD_LETTERS


def dead_letter(record: Record, *, stage: str, reason: str, message: str) -> OutputRecord:
    """Return the dead letter of a record: the same one whenever the record is handled again.

    Value and headers are the original's. The key is the source reference; where the record came from, which stage gave
    it up and why stand in `dlq.` headers. `message` must not hold any of the record's text.
    """
    source_key = () if record.key is None else (("dlq.src.key", record.key),)
    return OutputRecord(
        topic=DEAD_LETTERS,
        key=source_reference(record.topic, record.partition, record.offset).encode(),
        value=record.value,
        timestamp=record.timestamp,
        headers=(
            *record.headers,
            ("dlq.stage", stage.encode()),
            ("dlq.reason", reason.encode()),
            ("dlq.error.message", message.encode()),
            ("dlq.src.topic", record.topic.encode()),
            ("dlq.src.partition", str(record.partition).encode()),
            ("dlq.src.offset", str(record.offset).encode()),
            ("dlq.src.timestamp", str(record.timestamp).encode()),
            *source_key,
        ),
    )
