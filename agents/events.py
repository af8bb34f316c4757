"""Structured events as output records."""

from typing import TypeVar

import orjson

from ctrainer.agents.records import OutputRecord, Record
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.envelope import Event, event_type, structured_headers, time_of, traceparent_of
from ctrainer.schemas.identity import event_id, source_reference
from ctrainer.schemas.message import Message

Data = TypeVar("Data", bound=Message)


def event_record(
    *,
    topic: str,
    key: str,
    data: Message,
    cause: Record,
    constitution: ConstitutionReference,
    partition: int | None = None,
) -> OutputRecord:
    """Return the event that `cause` brings about: the same bytes whenever that record is handled again.

    A record causes at most one event of each data type, so cause and type make the id.
    """
    kind = type(data)
    source = source_reference(cause.topic, cause.partition, cause.offset)
    traceparent = traceparent_of(cause.headers)
    event = Event[kind](  # type: ignore[valid-type] # the type is known only at run time
        id=event_id(source, kind.__name__, constitution.digest),
        source=source,
        type=event_type(kind),
        subject=key,
        time=time_of(cause.timestamp),
        constitutionhash=constitution.hash,
        constitutiondigest=constitution.digest,
        traceparent=traceparent,
        data=data,
    )
    return OutputRecord(
        topic=topic,
        key=key.encode(),
        value=event.to_json(),
        timestamp=cause.timestamp,
        headers=structured_headers(traceparent),
        partition=partition,
    )


def read_event(value: bytes | None, data_type: type[Data]) -> Data:
    """Return the data of a structured event.

    Raises:
        ContractError: `invalid-message`.
    """
    return Event[data_type].from_json(value).data  # type: ignore[valid-type] # the type is known only at run time


def event_caused_by(source: str, record: Record, data_type: type[Data]) -> Data | None:
    """Return the data of a record if it is an event of this type that the record at `source` caused, or None."""
    envelope = orjson.loads(record.value or b"{}")
    if envelope.get("type") != event_type(data_type) or envelope["source"] != source:
        return None
    return data_type.model_validate(envelope["data"])
