"""The audit log on the wire, shaped after the Open Cybersecurity Schema Framework (OCSF 1.6) API Activity class."""

from typing import Final, Literal

from ctrainer.schemas.message import Message

CLASS_API_ACTIVITY: Final = 6003
ACTIVITY_CREATE = 1
ACTIVITY_UPDATE = 3


class AuditSubject(Message):
    """What an audit event is about, by reference: the record's place and the digest of its bytes, never its text."""

    source: str
    event_id: str
    event_type: str
    digest: str


class AuditRecorded(Message):
    """One fact that must never be lost or altered."""

    class_uid: Literal[6003] = CLASS_API_ACTIVITY
    activity_id: int
    type_uid: int
    severity_id: int
    status: str
    message: str
    tenant: str
    correlation_uid: str
    subject: AuditSubject


class AuditCheckpoint(Message):
    """A signed tree head over one partition of `audit.events` (C2SP tlog-checkpoint text in `note`)."""

    origin: str
    partition: int
    size: int
    next_offset: int
    frontier: tuple[str, ...]
    note: str
