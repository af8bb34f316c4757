"""From the bytes of a flywheel record to a well-formed sample, or to the reason why not."""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from ctrainer.agents.compliance.segments import tools_text
from ctrainer.agents.compliance.turns import Turns
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.envelope import Headers, header, require_known_version
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.flywheel import CONTRACT_VERSIONS, FlywheelRecord
from ctrainer.schemas.message import describe_faults
from ctrainer.schemas.samples import ChatMessage, Repair

MAX_RECORD_BYTES: Final = 1_048_576
MAX_MESSAGES: Final = 1_000
HASH_HEADERS = ("ce_constitutionhash", "constitutional-hash", "x-constitutional-hash")
CONVERSATION_KEYS = ("conversation_id", "session_id", "thread_id")
FIRST_MILLISECOND_STAMP = 100_000_000_000
"""Seconds reach this value in the year 5138: what is not below it was logged in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedSample:
    """A record in one form: the conversation with the answer as its last turn. `logged_at` is in epoch seconds."""

    tenant: str
    workload_id: str
    logged_at: int
    model: str
    conversation_id: str
    user_digest: str | None
    messages: tuple[ChatMessage, ...]
    tools: tuple[dict[str, Any], ...]
    repairs: tuple[Repair, ...]


def shape(value: bytes | None, headers: Headers = (), *, max_bytes: int = MAX_RECORD_BYTES) -> ShapedSample:
    """Read, check and repair one record.

    Raises:
        ContractError: with the dead-letter code; the message names places, never their text.
    """
    require_known_version(headers)
    record = _read(value, max_bytes)
    _require_known_contract(record, headers)
    turns = Turns()
    turns.add_request(_messages_within_limit(record))
    turns.add_response(record)
    messages, repairs = turns.finish()
    logged_at, clock_repairs = _seconds(record.timestamp)
    return ShapedSample(
        tenant=record.client_id,
        workload_id=record.workload_id,
        logged_at=logged_at,
        model=record.request.model or "",
        conversation_id=_conversation_id(record, messages),
        user_digest=_digest(record.client_id, record.request.user) if record.request.user else None,
        messages=messages,
        tools=_tools(record),
        repairs=(*clock_repairs, *repairs),
    )


def _read(value: bytes | None, max_bytes: int) -> FlywheelRecord:
    if not value or not value.strip():
        raise ContractError("empty-record", "record value: got nothing, expected one JSON object")
    if len(value) > max_bytes:
        raise ContractError("record-too-large", f"record value: got {len(value)} bytes, expected at most {max_bytes}")
    try:
        return FlywheelRecord.model_validate_json(value)
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


def _require_known_contract(record: FlywheelRecord, headers: Headers) -> None:
    version = record.contract_version
    if version is not None and version not in CONTRACT_VERSIONS:
        expected = ", ".join(sorted(CONTRACT_VERSIONS))
        raise ContractError("unknown-contract-version", f"contract_version: got {version[:16]!r}, expected {expected}")
    named = [header(headers, name) for name in HASH_HEADERS] + [record.constitutional_hash]
    if any(name not in {None, GOVERNANCE_HASH} for name in named):
        raise ContractError("foreign-constitution-hash", f"constitution hash: expected {GOVERNANCE_HASH}")


def _messages_within_limit(record: FlywheelRecord) -> FlywheelRecord:
    messages = record.request.messages
    if not messages:
        raise ContractError("no-messages", "request.messages: got none, expected at least one")
    if len(messages) > MAX_MESSAGES:
        raise ContractError(
            "too-many-messages", f"request.messages: got {len(messages)}, expected at most {MAX_MESSAGES}"
        )
    return record


def _tools(record: FlywheelRecord) -> tuple[dict[str, Any], ...]:
    tools = record.request.tools or ()
    try:
        tools_text(tools)
    except (TypeError, ValueError) as error:
        raise ContractError("wrong-type", "request.tools: holds a number that JSON readers do not agree on") from error
    return tools


def _seconds(timestamp: float) -> tuple[int, tuple[Repair, ...]]:
    if timestamp < FIRST_MILLISECOND_STAMP:
        return int(timestamp), ()
    return int(timestamp / 1000), (Repair(code="milliseconds-to-seconds", path="timestamp"),)


def _conversation_id(record: FlywheelRecord, messages: tuple[ChatMessage, ...]) -> str:
    """Return what all turns of one conversation share: the id the producer gave, else a digest of how it began."""
    metadata = record.request.metadata or {}
    given = next((metadata[key] for key in CONVERSATION_KEYS if isinstance(metadata.get(key), str)), None)
    if given:
        return _digest(record.client_id, given)
    opening = (next((turn.content for turn in messages if turn.role == role), "") for role in ("system", "user"))
    return _digest(record.client_id, *opening)


def _digest(*parts: str) -> str:
    """Return the SHA-256 of parts that no other list of parts shares."""
    state = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        state.update(len(encoded).to_bytes(8, "big") + encoded)
    return state.hexdigest()
