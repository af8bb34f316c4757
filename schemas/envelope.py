"""CloudEvents 1.0 around every message.

Events are in structured mode: envelope and data are one JSON value, so one digest covers both and
no tool can lose a header.
Samples and commands are in binary mode: the value is the data itself and the attributes are `ce_*` headers.
Source: CloudEvents specification 1.0.2 and its Kafka protocol binding.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Generic, Literal, TypeVar

from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.message import Message

Data = TypeVar("Data", bound=Message)

SCHEMA_VERSION: Final = "1"
SCHEMA_VERSION_HEADER = "schema-version"
SUPPORTED_VERSIONS = frozenset({SCHEMA_VERSION})
STRUCTURED_CONTENT_TYPE = b"application/cloudevents+json"
TYPE_PREFIX = "org.constitutional-trainer"

_LAST_MILLISECOND = 253_402_300_799_999
_TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

Headers = tuple[tuple[str, bytes], ...]


class Event(Message, Generic[Data]):
    """A CloudEvent in structured mode whose `data` is one of this project's messages.

    `time` is taken from the record that caused the event, never from a clock.
    """

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    schemaversion: Literal["1"] = SCHEMA_VERSION
    constitutionhash: str
    constitutiondigest: str
    traceparent: str | None = None
    data: Data


def event_type(data_type: type[Message]) -> str:
    """Return the CloudEvents type of a message class.

    >>> from ctrainer.schemas.privacy import BudgetSpent
    >>> event_type(BudgetSpent)
    'org.constitutional-trainer.BudgetSpent.v1'
    """
    return f"{TYPE_PREFIX}.{data_type.__name__}.v{SCHEMA_VERSION}"


def time_of(timestamp: int) -> datetime:
    """Return a Kafka timestamp (milliseconds since the epoch) as an aware UTC time.

    Producers choose timestamps: one outside of the years 1970 to 9999 is taken as the nearest one inside.
    """
    return datetime.fromtimestamp(min(max(timestamp, 0), _LAST_MILLISECOND) / 1000, tz=UTC)


@lru_cache(maxsize=4096)
def time_text(timestamp: int) -> str:
    """Return `time_of` as JSON has it (RFC 3339). Kept, because records of a batch share their milliseconds.

    >>> time_text(1_764_000_000_123)
    '2025-11-24T16:00:00.123000Z'
    """
    return time_of(timestamp).isoformat().replace("+00:00", "Z")


def structured_headers(traceparent: str | None = None) -> Headers:
    """Return the headers of a record whose value is a structured event."""
    headers = (("content-type", STRUCTURED_CONTENT_TYPE), (SCHEMA_VERSION_HEADER, SCHEMA_VERSION.encode()))
    return (*headers, ("traceparent", traceparent.encode())) if traceparent else headers


def binary_headers(attributes: Mapping[str, str]) -> Headers:
    """Return the headers of a record whose value is the data itself; `attributes` are CloudEvents attributes."""
    names = {"specversion": "1.0", **attributes}
    return (
        ("content-type", b"application/json"),
        (SCHEMA_VERSION_HEADER, SCHEMA_VERSION.encode()),
        *((f"ce_{name}", value.encode()) for name, value in names.items()),
    )


def header(headers: Headers, name: str) -> str | None:
    """Return the last header called `name` as text, or None; undecodable bytes are replaced."""
    values = [value for key, value in headers if key == name]
    return values[-1].decode("utf-8", "replace") if values else None


def traceparent_of(headers: Headers) -> str | None:
    """Return the W3C trace context of a record, or None where it has none of that form (and so of that length)."""
    traceparent = header(headers, "traceparent")
    return traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None


def require_known_version(headers: Headers) -> None:
    """Accept a record of a known schema version; a record without the header counts as version 1.

    Raises:
        ContractError: `unknown-schema-version`.
    """
    version = header(headers, SCHEMA_VERSION_HEADER) if headers else None
    if version is not None and version not in SUPPORTED_VERSIONS:
        expected = ", ".join(sorted(SUPPORTED_VERSIONS))
        raise ContractError("unknown-schema-version", f"schema version: got {version[:16]!r}, expected {expected}")
