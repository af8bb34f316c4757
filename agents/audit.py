"""The audit trail: every decision, session step, spend, dataset, adapter and dead letter becomes one audit event.

An audit event refers to its record by place and digest and repeats none of its content, so it stays small and holds no
sample text. Order within a partition of `audit.events` is the sequence that checkpoints will sign.
"""

from collections.abc import Sequence

import orjson

from ctrainer.agents.events import event_record
from ctrainer.agents.force import InForce
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.audit import ACTIVITY_CREATE, CLASS_API_ACTIVITY, AuditRecorded, AuditSubject
from ctrainer.schemas.envelope import event_type, header, traceparent_of
from ctrainer.schemas.identity import content_digest, source_reference
from ctrainer.schemas.topics import (
    ADAPTERS_PUBLISHED,
    AUDIT_EVENTS,
    COMPLIANCE_EVENTS,
    CONSTITUTION_EVENTS,
    DATASETS_SEALED,
    DEAD_LETTERS,
    PRIVACY_EVENTS,
    TRAINING_PROGRESS,
)
from ctrainer.schemas.training import SessionProgressed

AUDITED = (
    COMPLIANCE_EVENTS,
    CONSTITUTION_EVENTS,
    PRIVACY_EVENTS,
    TRAINING_PROGRESS,
    DATASETS_SEALED,
    ADAPTERS_PUBLISHED,
    DEAD_LETTERS,
)
UNKNOWN_TENANT = "unknown"
_LONGEST_TEXT = 512
_INFORMATIONAL, _MEDIUM, _HIGH = 1, 3, 4
_LIVE = event_type(SessionProgressed)
_SEVERITY = {
    "AdapterRejected": _MEDIUM,
    "BudgetAlerted": _MEDIUM,
    "BudgetHalted": _HIGH,
    "BudgetViolated": _HIGH,
    "CommandRefused": _MEDIUM,
    "NonPrivateTrained": _HIGH,
    "RevisionHalted": _HIGH,
    "RevisionResumed": _MEDIUM,
}


class AuditTrail:
    """The handler of every audited topic."""

    def __init__(self, *, in_force: InForce) -> None:
        self._in_force = in_force

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return one audit event for each record but live progress; what cannot be read is audited as unreadable."""
        return [self._audited(record) for record in batch.records if not _is_live_progress(record)]

    def _audited(self, record: Record) -> OutputRecord:
        data = audit_of(record)
        return event_record(topic=AUDIT_EVENTS, key=data.tenant, data=data, cause=record, constitution=self._in_force())


def _is_live_progress(record: Record) -> bool:
    """Return whether a record only tells how far a session is: every block of it is told, and audited, too."""
    return record.topic == TRAINING_PROGRESS and _envelope(record).get("type") == _LIVE


def audit_of(record: Record) -> AuditRecorded:
    """Return the audit event of one record."""
    envelope = _envelope(record)
    kind = _short(envelope.get("type", "unreadable"))
    name = kind.rsplit(".", 2)[-2] if kind.count(".") > 1 else kind
    source = source_reference(record.topic, record.partition, record.offset)
    return AuditRecorded(
        activity_id=ACTIVITY_CREATE,
        type_uid=CLASS_API_ACTIVITY * 100 + ACTIVITY_CREATE,
        severity_id=_SEVERITY.get(name, _MEDIUM if record.topic == DEAD_LETTERS else _INFORMATIONAL),
        status="unreadable" if kind == "unreadable" else "recorded",
        message=f"{name} on {record.topic}",
        tenant=_tenant(envelope),
        correlation_uid=traceparent_of(record.headers) or _short(envelope.get("subject", source)),
        subject=AuditSubject(
            source=source,
            event_id=_short(envelope.get("id", "")),
            event_type=kind,
            digest=content_digest(record.value or b""),
        ),
    )


def _envelope(record: Record) -> dict[str, object]:
    """Return the envelope of an event; a dead letter is described by its headers, its bytes are not looked into."""
    if record.topic == DEAD_LETTERS:
        key = (record.key or b"").decode("utf-8", "replace")
        reason = header(record.headers, "dlq.reason") or "unknown"
        return {"type": f"dead-letter.{reason}.v1", "id": key, "subject": key}
    try:
        envelope = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return {}
    return envelope if isinstance(envelope, dict) else {}


def _tenant(envelope: dict[str, object]) -> str:
    data = envelope.get("data")
    tenant = data.get("tenant") if isinstance(data, dict) else None
    return _short(tenant) if isinstance(tenant, str) and tenant else UNKNOWN_TENANT


def _short(value: object) -> str:
    """Return a text of bounded length, or, for what is no text, that it is unreadable: an audit event stays small."""
    return value[:_LONGEST_TEXT] if isinstance(value, str) else "unreadable"
