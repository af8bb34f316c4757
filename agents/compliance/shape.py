"""From the bytes of a flywheel record to a well-formed sample, or to the reason why not."""

import hashlib
from collections.abc import Mapping, Sequence
from struct import Struct as Layout
from typing import Any, Final

import orjson
from msgspec import Struct
from pydantic import ValidationError

from ctrainer.agents.compliance.conversation import Turn
from ctrainer.agents.compliance.plain_record import MAX_MESSAGES, PlainRecord, plain_record
from ctrainer.agents.compliance.segments import tools_text
from ctrainer.agents.compliance.turns import Note, Turns
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.envelope import Headers, header, require_known_version
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.flywheel import CONTRACT_VERSIONS, FLYWHEEL_RECORD, FlywheelRecord, LoggedMessage
from ctrainer.schemas.message import describe_faults

MAX_RECORD_BYTES: Final = 1_048_576
HASH_HEADERS = ("ce_constitutionhash", "constitutional-hash", "x-constitutional-hash")
CONVERSATION_KEYS = ("conversation_id", "session_id", "thread_id")
FIRST_MILLISECOND_STAMP = 100_000_000_000
"""Seconds reach this value in the year 5138: what is not below it was logged in milliseconds."""
_LENGTH: Final = Layout(">Q").pack


class ShapedSample(Struct, frozen=True):
    """A record in one form: the conversation with the answer as its last turn. `logged_at` is in epoch seconds.

    `conversation` is the id of the conversation, or what it is made of: the tenant, the id that the producer gave, and
    the turns as they came. A sample that is rejected needs none.
    `redactions` were made by an earlier decision on the same sample.
    """

    tenant: str
    workload_id: str
    logged_at: int
    model: str
    conversation: str | tuple[str, str | None, Sequence[Turn]]
    user_digest: str | None
    messages: list[Turn]
    tools: list[dict[str, Any]]
    repairs: list[Note]
    redactions: Sequence[dict[str, Any]] = ()

    @property
    def conversation_id(self) -> str:
        """What all turns of one conversation share."""
        return self.conversation if isinstance(self.conversation, str) else _conversation_id(*self.conversation)


def shape(value: bytes | None, headers: Headers = (), *, max_bytes: int = MAX_RECORD_BYTES) -> ShapedSample:
    """Read, check and repair one record.

    Raises:
        ContractError: with the dead-letter code; the message names places, never their text.
    """
    require_known_version(headers)
    present = _present(value, max_bytes)
    plain = plain_record(present)
    if plain is not None:
        _require_known_contract(plain.contract_version, plain.constitutional_hash, headers)
        return _of_plain(plain)
    record = _read(present)
    _require_known_contract(record.get("contract_version"), record.get("constitutional_hash"), headers)
    turns = Turns()
    turns.add_request(_messages(record))
    turns.add_response(record)
    messages, repairs = turns.finish()
    request, tenant = record["request"], record["client_id"]
    user = request.get("user")
    return ShapedSample(
        tenant=tenant,
        workload_id=record["workload_id"],
        logged_at=_seconds(record["timestamp"], repairs),
        model=request.get("model") or "",
        conversation=(tenant, _given_id(request.get("metadata")), messages),
        user_digest=_digest(tenant, user) if user else None,
        messages=messages,
        tools=_tools(record),
        repairs=repairs,
    )


def _of_plain(record: PlainRecord) -> ShapedSample:
    """Return the sample of a record that needs no repair, but for the unit of its time."""
    request, tenant, messages = record.request, record.client_id, record.turns()
    repairs: list[Note] = []
    return ShapedSample(
        tenant,
        record.workload_id,
        _seconds(record.timestamp, repairs),
        request.model or "",
        (tenant, _given_id(request.metadata), messages),
        _digest(tenant, request.user) if request.user else None,
        messages,
        [],
        repairs,
    )


def _present(value: bytes | None, max_bytes: int) -> bytes:
    if not value or not value.strip():
        raise ContractError("empty-record", "record value: got nothing, expected one JSON object")
    if len(value) > max_bytes:
        raise ContractError("record-too-large", f"record value: got {len(value)} bytes, expected at most {max_bytes}")
    return value


def _read(value: bytes) -> FlywheelRecord:
    try:
        return FLYWHEEL_RECORD.validate_json(value)
    except ValidationError as error:
        raise _contract_error(value, error) from error


def _contract_error(value: bytes, error: ValidationError) -> ContractError:
    """Return the most precise reason for a record that pydantic refused."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    kinds = {fault["type"] for fault in faults}
    if "json_invalid" in kinds:
        return _unreadable(value)
    if any(not fault["loc"] for fault in faults):
        return ContractError("not-an-object", "record value: expected one JSON object")
    reason = "missing-field" if "missing" in kinds else "wrong-type"
    return ContractError(reason, f"flywheel record: {describe_faults(error)[:1000]}")


def _unreadable(value: bytes) -> ContractError:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return ContractError("not-utf8", f"record value: byte {error.start} is not UTF-8")
    return ContractError("not-json", "record value: not well-formed JSON")


def _require_known_contract(version: str | None, given: str | None, headers: Headers) -> None:
    if version is not None and version not in CONTRACT_VERSIONS:
        expected = ", ".join(sorted(CONTRACT_VERSIONS))
        raise ContractError("unknown-contract-version", f"contract_version: got {version[:16]!r}, expected {expected}")
    if given is None and not headers:
        return
    named = {given, *(header(headers, name) for name in HASH_HEADERS)}
    if not named <= {None, GOVERNANCE_HASH}:
        raise ContractError("foreign-constitution-hash", f"constitution hash: expected {GOVERNANCE_HASH}")


def _messages(record: FlywheelRecord) -> list[LoggedMessage]:
    messages = record["request"].get("messages")
    if not messages:
        raise ContractError("no-messages", "request.messages: got none, expected at least one")
    if len(messages) > MAX_MESSAGES:
        raise ContractError(
            "too-many-messages", f"request.messages: got {len(messages)}, expected at most {MAX_MESSAGES}"
        )
    return messages


def _tools(record: FlywheelRecord) -> list[dict[str, Any]]:
    tools = record["request"].get("tools")
    if not tools:
        return []
    # What JSON has no number for is written as null.
    if not _is_json(tools):
        raise ContractError("wrong-type", "request.tools: holds a number that JSON readers do not agree on")
    return tools


def _is_json(tools: list[dict[str, Any]]) -> bool:
    try:
        return bool(orjson.loads(tools_text(tools)) == tools)
    except (TypeError, ValueError):
        return False


def _seconds(timestamp: float, repairs: list[Note]) -> int:
    if timestamp < FIRST_MILLISECOND_STAMP:
        return int(timestamp)
    repairs.insert(0, {"code": "milliseconds-to-seconds", "path": "timestamp"})
    return int(timestamp / 1000)


def _given_id(metadata: Mapping[str, Any] | None) -> str | None:
    if not metadata:
        return None
    return next((metadata[key] for key in CONVERSATION_KEYS if isinstance(metadata.get(key), str)), None) or None


def _conversation_id(tenant: str, given: str | None, messages: Sequence[Turn]) -> str:
    """Return what all turns of one conversation share: the id the producer gave, else a digest of how it began."""
    if given is not None:
        return _digest(tenant, given)
    return _digest(tenant, _first(messages, "system"), _first(messages, "user"))


def _first(messages: Sequence[Turn], role: str) -> str:
    """Return the content of the first turn of a role."""
    for turn in messages:
        if turn["role"] == role:
            return turn["content"]
    return ""


def _digest(*parts: str) -> str:
    """Return the SHA-256 of parts that no other list of parts shares."""
    encoded = [part.encode() for part in parts]
    return hashlib.sha256(b"".join([_LENGTH(len(one)) + one for one in encoded])).hexdigest()
