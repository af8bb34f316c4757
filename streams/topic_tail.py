"""Shows a topic's records as JSON lines, the way a person or a pipe reads them."""

import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from ctrainer.agents.records import Record
from ctrainer.streams.topic_reader import TopicReader, to_record


async def tail(topic: str, *, reader: TopicReader, follow: bool) -> AsyncIterator[Record]:
    """Yield every committed record of `topic`, and with `follow` go on with new ones for ever."""
    ends = await reader.end_offsets(topic)
    async for record in reader.read_topic(topic):
        yield record
    if follow:
        async for record in _follow(topic, ends, reader):
            yield record


def as_json(record: Record) -> bytes:
    """Return one record as one JSON line: place, key, headers and value; a value that is no JSON is base64 text."""
    line = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": _text(record.key),
        "headers": {name: _text(value) for name, value in record.headers},
        **_value(record.value),
    }
    return orjson.dumps(line)


async def _follow(topic: str, starts: Mapping[int, int], reader: TopicReader) -> AsyncIterator[Record]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=reader.bootstrap_servers,
        enable_auto_commit=False,
        isolation_level="read_committed",
        **reader.security,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in starts])
        for partition, offset in starts.items():
            consumer.seek(TopicPartition(topic, partition), offset)
        async for record in consumer:
            yield to_record(record)
    finally:
        await consumer.stop()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _value(value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {"value": None}
    try:
        return {"value": orjson.loads(value)}
    except orjson.JSONDecodeError:
        return {"value_base64": base64.b64encode(value).decode()}
