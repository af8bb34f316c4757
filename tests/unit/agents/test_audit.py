import json
from typing import Any

import pytest

from ctrainer.agents.audit import AUDITED, AuditTrail
from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.events import event_record
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.identity import content_digest
from ctrainer.schemas.topics import TOPICS
from ctrainer.schemas.training import CommandRefused, SessionProgressed

CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")
NOON = 1_700_000_000_000
LIMIT = 64 * 1024
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def refused(**headers: str) -> Record:
    data = CommandRefused(
        request_id="r1",
        session_id=None,
        tenant="acme",
        command="TrainAdapter",
        reason="too-many-sessions",
        message="5 sessions are active",
        acceptable="later",
    )
    trace = tuple((name, value.encode()) for name, value in headers.items())
    cause = Record("training.requests", 0, 7, NOON, b"acme", b"{}", trace)
    return stored(event_record(topic="training.progress", key="r1", data=data, cause=cause, constitution=CONSTITUTION))


def stored(output: OutputRecord, offset: int = 4) -> Record:
    return Record(output.topic, 1, offset, output.timestamp, output.key, output.value, output.headers)


async def audited(record: Record) -> tuple[OutputRecord, dict[str, Any]]:
    batch = RecordBatch(topic=record.topic, partition=record.partition, epoch=1, records=(record,))
    (output,) = await AuditTrail(in_force=lambda: CONSTITUTION)(batch)
    assert output.topic == "audit.events"
    assert len(output.value or b"") < LIMIT
    data: dict[str, Any] = json.loads(output.value or b"")["data"]
    return output, data


async def test_an_event_is_audited_by_its_place_and_the_digest_of_its_bytes() -> None:
    record = refused(traceparent=TRACE)
    output, data = await audited(record)
    assert (output.key, data["tenant"], data["correlation_uid"]) == (b"acme", "acme", TRACE)
    assert data["subject"] == {
        "source": "training.progress/1/4",
        "event_id": json.loads(record.value or b"")["id"],
        "event_type": "org.constitutional-trainer.CommandRefused.v1",
        "digest": content_digest(record.value or b""),
    }
    assert (data["class_uid"], data["type_uid"], data["severity_id"]) == (6003, 600_301, 3)


async def test_live_progress_leaves_no_audit_event() -> None:
    live = SessionProgressed(session_id="s", tenant="acme", step=1, steps=8, steps_per_second=1.0, seconds_left=7.0)
    cause = Record("sessions/s/live", 0, 1, NOON, None, None)
    record = stored(event_record(topic="training.progress", key="s", data=live, cause=cause, constitution=CONSTITUTION))
    batch = RecordBatch(topic=record.topic, partition=record.partition, epoch=1, records=(record,))
    assert await AuditTrail(in_force=lambda: CONSTITUTION)(batch) == []


async def test_the_same_record_is_audited_with_the_same_bytes() -> None:
    assert await audited(refused()) == await audited(refused())


async def test_every_record_of_a_batch_is_audited_in_order() -> None:
    records = tuple(refused()._replace(offset=offset) for offset in range(5))
    batch = RecordBatch(topic="training.progress", partition=1, epoch=1, records=records)
    outputs = await AuditTrail(in_force=lambda: CONSTITUTION)(batch)
    sources = [json.loads(output.value or b"")["data"]["subject"]["source"] for output in outputs]
    assert sources == [f"training.progress/1/{offset}" for offset in range(5)]


@pytest.mark.parametrize("value", [None, b"", b"\xff\xfe", b"[1]", b"{", b'"text"', b"[" * 100_000])
async def test_what_cannot_be_read_is_audited_as_unreadable(value: bytes | None) -> None:
    output, data = await audited(refused()._replace(value=value))
    assert (output.key, data["status"]) == (b"unknown", "unreadable")
    assert data["subject"]["digest"] == content_digest(value or b"")


async def test_a_dead_letter_is_audited_without_a_look_into_its_bytes() -> None:
    poison = Record("flywheel.samples", 0, 9, NOON, None, b'{"id": "secret text", "data": {"tenant": "evil"}}')
    letter = dead_letter(poison, stage="screening", reason="not-json", message="")
    output, data = await audited(stored(letter))
    assert data["subject"]["event_type"] == "dead-letter.not-json.v1"
    assert (data["tenant"], data["subject"]["event_id"]) == ("unknown", "flywheel.samples/0/9")
    assert b"secret" not in (output.value or b"")


@pytest.mark.parametrize("timestamp", [-1, 0, 10**17, 2**63 - 1])
async def test_a_dead_letter_with_an_absurd_timestamp_is_audited(timestamp: int) -> None:
    poison = Record("flywheel.samples", 0, 9, timestamp, None, b"{")
    await audited(stored(dead_letter(poison, stage="screening", reason="not-json", message="")))


async def test_whatever_a_producer_wrote_its_audit_event_stays_small() -> None:
    long = "x" * 300_000
    poison = Record("flywheel.samples", 0, 9, NOON, None, b"{", (("traceparent", long.encode()),))
    output, _ = await audited(stored(dead_letter(poison, stage="screening", reason="not-json", message="")))
    assert sum(len(value) for _, value in output.headers) < 1_000
    envelope = {"id": long, "type": long, "subject": long, "data": {"tenant": long}}
    await audited(refused()._replace(value=json.dumps(envelope).encode()))


def test_the_trail_audits_topics_that_exist_and_never_itself() -> None:
    assert set(AUDITED) <= set(TOPICS)
    assert not {"audit.events", "audit.checkpoints"} & set(AUDITED)
