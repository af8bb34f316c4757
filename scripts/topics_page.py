"""Writes docs/topics.md from the contract. A test fails when the page and the contract differ."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ctrainer.schemas.catalogue import CATALOGUE, Mode
from ctrainer.schemas.envelope import SCHEMA_VERSION, TYPE_PREFIX
from ctrainer.schemas.message import Message
from ctrainer.schemas.topics import DAY_MS, FOREVER_MS, TOPICS, Cleanup, Topic

PAGE = Path(__file__).parent.parent / "docs" / "topics.md"

INTRODUCTION = """# Topics

Everything that goes in or comes out is JSON (UTF-8) on one of these topics. `ctrainer topics apply` creates them.
Written by `scripts/topics_page.py` from `schemas/`; do not edit by hand.

## What every record has in common

- Read with `isolation.level=read_committed`. Records are published in transactions; without it you also see what was aborted.
- Every event has a deterministic `id`: handling the same input again gives the same id. Keep the ids you have seen, and a
  duplicate can never count twice, whatever happens between you and the broker.
- Header `schema-version` is `1`. An input without it counts as version 1; any other version is a dead letter.
- Header `traceparent` (W3C Trace Context), where an input has one, is passed on to everything that follows from it.
- **structured** topics carry one CloudEvents 1.0 JSON object, header `content-type: application/cloudevents+json`. Its attributes:
  `specversion`, `id`, `source` (`topic/partition/offset` of the record that caused it, or `sessions/ID/MOMENT/0/STEP`), `type`,
  `subject`, `time` (the causing record's timestamp), `constitutionhash`, `constitutiondigest`, `schemaversion`,
  `traceparent`, and `data`: the message described below.
- **binary** topics carry the message itself; CloudEvents attributes are headers named `ce_*`. An input needs none of them.
- A consumer in five lines:

```python
from aiokafka import AIOKafkaConsumer
import json

async with AIOKafkaConsumer("compliance.events", bootstrap_servers="...", isolation_level="read_committed") as events:
    async for record in events:
        print(json.loads(record.value)["data"]["verdict"])
```

## Commands

Commands on `training.requests` are signed: header `ctrainer-signature: KEY_ID:BASE64`, an Ed25519 signature over
`"ctrainer-command-v1\\n"`, the length of the record key as four big-endian bytes, the record key, and the record value.
The record key is the tenant. `constitution` names the governance hash and the digest of the constitution that the
requester relies on; if another one is active, the command is refused. A refusal is a `CommandRefused` on `training.progress`.

## Dead letters

A record that cannot be handled is copied to `dead-letters` with value and headers untouched and these headers added:
`dlq.stage`, `dlq.reason` (a code), `dlq.error.message` (never any of the record's text), `dlq.src.topic`, `dlq.src.partition`,
`dlq.src.offset`, `dlq.src.timestamp`, and `dlq.src.key` where the record had a key.
A record that no topic takes back (compressed, it may be many times as large as its topic allows) leaves only a reference: no value,
none of its own headers, and `dlq.omitted.bytes` and `dlq.omitted.sha256` of its value.
"""


def page() -> str:
    """Return the whole page."""
    sections = [INTRODUCTION, _overview(), *(_section(topic) for topic in TOPICS.values())]
    return "\n".join(sections)


def _overview() -> str:
    rows = [
        f"| [`{topic.name}`](#{_anchor(topic.name)}) | {topic.key} | {topic.carries} |" for topic in TOPICS.values()
    ]
    return "\n".join(["## All topics", "", "| topic | key | carries |", "| --- | --- | --- |", *rows, ""])


def _section(topic: Topic) -> str:
    content = CATALOGUE[topic.name]
    facts = [
        f"- direction: {topic.direction.value}",
        f"- key: {topic.key}",
        f"- partitions: {topic.partitions or 'as the deployment says (`CTRAINER_PARTITIONS`)'}",
        f"- cleanup: {_cleanup(topic)}",
        f"- mode: {content.mode.value}",
    ]
    if not content.in_use:
        facts.append("- this version reads and writes nothing here: the topic and its message are reserved")
    if content.mode is Mode.ORIGINAL:
        facts.append("- value: the bytes of the record that could not be handled")
    messages = [line for message in content.messages for line in _message(message, content.mode)]
    return "\n".join(
        [f"## {topic.name}", "", f"{topic.carries[0].upper()}{topic.carries[1:]}.", "", *facts, "", *messages]
    )


def _cleanup(topic: Topic) -> str:
    if topic.cleanup is Cleanup.COMPACT:
        return "compact: the newest record of a key stays"
    kept = "for ever" if topic.retention_ms == FOREVER_MS else f"{topic.retention_ms // DAY_MS} days"
    return f"delete, kept {kept}"


def _message(message: type[Any], mode: Mode) -> Iterator[str]:
    schema = TypeAdapter(message).json_schema(mode="serialization")
    is_event = mode is Mode.STRUCTURED and issubclass(message, Message)
    kind = f" (`type`: `{TYPE_PREFIX}.{message.__name__}.v{SCHEMA_VERSION}`)" if is_event else ""
    yield f"### {message.__name__}{kind}"
    yield ""
    yield " ".join((message.__doc__ or "").split())
    yield ""
    yield from _fields(schema)
    for name, part in schema.get("$defs", {}).items():
        if "properties" in part:
            yield f"where `{name}` has"
            yield ""
            yield from _fields(part)
        elif "enum" in part:
            yield f"where `{name}` is one of {', '.join(f'`{value}`' for value in part['enum'])}"
            yield ""


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    yield "| field | type | |"
    yield "| --- | --- | --- |"
    for name, field in schema.get("properties", {}).items():
        note = "" if name in required else f"default `{field.get('default')}`" if "default" in field else "optional"
        yield f"| `{name}` | {_type(field)} | {note} |"
    yield ""


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return f"`{field['$ref'].rsplit('/', 1)[-1]}`"
    for union in ("anyOf", "oneOf"):
        if union in field:
            return " or ".join(_type(part) for part in field[union])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    return str(field.get("format") or field.get("type") or "any JSON")


def _anchor(name: str) -> str:
    return name.replace(".", "")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
