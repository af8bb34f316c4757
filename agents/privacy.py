"""The privacy ledger: grants or refuses every block of private steps before it runs, and never forgets one.

One partition of `privacy.requests` has one owner, which alone writes the same partition of `privacy.ledger`; Kafka
fences a former owner. The ledger topic is the state: it is read again on each assignment.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.events import event_record, read_event
from ctrainer.agents.force import InForce
from ctrainer.agents.provisional import Provisional
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.world import Topics
from ctrainer.schemas.envelope import require_known_version
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.identity import content_digest
from ctrainer.schemas.message import Message, describe_faults
from ctrainer.schemas.privacy import (
    Accountant,
    Adjacency,
    BudgetAlerted,
    BudgetGranted,
    BudgetHalted,
    BudgetRefused,
    BudgetSettled,
    BudgetSpent,
    BudgetViolated,
    LedgerRecord,
    LedgerRequest,
    Mechanism,
    PrivacyGuarantee,
    PrivacyUnit,
    ReportViolation,
    ReserveBudget,
    SettleBudget,
    ViolationNoted,
)
from ctrainer.schemas.topics import PRIVACY_EVENTS, PRIVACY_LEDGER
from ctrainer.trainer.accounting import epsilon_of, rdp_of_step
from ctrainer.trainer.ledger import Grant, Granted, LedgerState, Refused, reserve

STAGE = "privacy"
_MECHANISM_CHANGED = "mechanism-changed"
_SESSION_STOPPED = "session-stopped"
Request: TypeAlias = ReserveBudget | SettleBudget | ReportViolation
_REQUEST: TypeAdapter[Request] = TypeAdapter(LedgerRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The ledger of one scope, which mechanism each of its sessions was granted, and which sessions were stopped."""

    ledger: LedgerState = field(default_factory=LedgerState)
    mechanisms: MappingProxyType[str, Mechanism] = field(default_factory=lambda: MappingProxyType({}))
    stopped: frozenset[str] = frozenset()


Scopes: TypeAlias = dict[str, Scope]


class PrivacyLedger:
    """The handler of `privacy.requests`."""

    def __init__(self, *, topics: Topics, in_force: InForce) -> None:
        self._topics = topics
        self._in_force = in_force
        self._partitions: dict[int, Provisional[Scopes]] = {}

    async def restore(self, partition: int, _committed_offset: int) -> None:
        """Read the whole ledger of a partition again."""
        scopes: Scopes = {}
        async for record in self._topics.read_topic(PRIVACY_LEDGER, partition):
            entry = read_event(record.value, LedgerRecord)
            scopes[entry.scope] = after(scopes.get(entry.scope, Scope()), entry)
        self._partitions[partition] = Provisional(scopes)

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Answer each request with an entry of the ledger, and the events that follow from it."""
        state = self._partitions[batch.partition]
        scopes = dict(state.before(batch.records[0].offset))
        outputs: list[OutputRecord] = []
        for record in batch.records:
            outputs.extend(await self._answer(record, scopes))
        state.propose(scopes, next_offset=batch.records[-1].offset + 1)
        return outputs

    async def _answer(self, record: Record, scopes: Scopes) -> Sequence[OutputRecord]:
        try:
            request = read_request(record)
        except ContractError as error:
            return [dead_letter(record, stage=STAGE, reason=error.reason, message=str(error))]
        scope = scopes.get(request.scope, Scope())
        entry, events = await _decide(scope, request)
        scopes[request.scope] = after(scope, entry)
        ledger = event_record(
            topic=PRIVACY_LEDGER,
            key=request.scope,
            data=entry,
            cause=record,
            constitution=self._in_force(),
            partition=record.partition,
        )
        return [ledger, *(self._event(event, request.scope, record) for event in events)]

    def _event(self, data: Message, scope: str, cause: Record) -> OutputRecord:
        return event_record(topic=PRIVACY_EVENTS, key=scope, data=data, cause=cause, constitution=self._in_force())


def read_request(record: Record) -> Request:
    """Read a request of the ledger.

    Raises:
        ContractError: `unknown-schema-version`, `invalid-message`, or `key-is-not-scope`: such a record may lie in
            another scope's partition.
    """
    require_known_version(record.headers)
    try:
        request = _REQUEST.validate_json(record.value or b"")
    except ValidationError as error:
        raise ContractError("invalid-message", f"ledger request: {describe_faults(error)}") from error
    if record.key != request.scope.encode():
        raise ContractError("key-is-not-scope", "ledger request: the record key must be the budget scope")
    return request


def after(scope: Scope, record: LedgerRecord) -> Scope:
    """Return a scope after one more entry of its ledger. A session that violated its grants is stopped for good."""
    entry = record.entry
    if not isinstance(entry, BudgetGranted):
        stopped = scope.stopped | _stopped_by(scope, entry)
        return replace(scope, ledger=replace(scope.ledger, sequence=entry.sequence), stopped=stopped)
    request = entry.request
    grant = Grant(fingerprint=fingerprint(request), steps=request.steps)
    grants = MappingProxyType({**scope.ledger.grants, request.reservation_id: grant})
    return replace(
        scope,
        ledger=LedgerState(rdp=entry.rdp, grants=grants, sequence=entry.sequence),
        mechanisms=MappingProxyType({**scope.mechanisms, request.session_id: request.mechanism}),
    )


def _stopped_by(scope: Scope, entry: BudgetRefused | BudgetSettled | ViolationNoted) -> frozenset[str]:
    """Return the session that an entry stops, if any: derived from the ledger alone, so a new owner knows it too."""
    if isinstance(entry, ViolationNoted):
        violated = True
    elif isinstance(entry, BudgetSettled):
        violated = _overspend(scope, entry.request) is not None
    else:
        violated = entry.reason == _MECHANISM_CHANGED
    return frozenset({entry.request.session_id}) if violated else frozenset()


def fingerprint(request: ReserveBudget) -> str:
    """Return the digest by which the same request is known again."""
    return content_digest(request.to_json())


async def _decide(scope: Scope, request: Request) -> tuple[LedgerRecord, Sequence[Message]]:
    if isinstance(request, SettleBudget):
        return _settle(scope, request)
    if isinstance(request, ReportViolation):
        return _noted(scope, request)
    if request.session_id in scope.stopped:
        return _refused(scope, request, _session_stopped(scope, request))
    if (request.mechanism.unit, request.mechanism.adjacency) != (PrivacyUnit.RECORD, Adjacency.ADD_REMOVE):
        return _refused(scope, request, _unaccounted(scope, request))
    known = scope.mechanisms.get(request.session_id)
    if known is not None and known != request.mechanism:
        return _mechanism_changed(scope, request)
    # The first call imports Opacus and torch, which takes seconds: never on the event loop.
    step = await asyncio.to_thread(rdp_of_step, request.mechanism.sampling_rate, request.mechanism.noise_multiplier)
    _state, answer = reserve(
        scope.ledger,
        reservation_id=request.reservation_id,
        fingerprint=fingerprint(request),
        step_rdp=step,
        steps=request.steps,
        epsilon_ceiling=request.epsilon_ceiling,
        delta=request.delta,
    )
    return _granted(scope, request, answer) if isinstance(answer, Granted) else _refused(scope, request, answer)


def _granted(scope: Scope, request: ReserveBudget, answer: Granted) -> tuple[LedgerRecord, Sequence[Message]]:
    entry = BudgetGranted(
        sequence=scope.ledger.sequence + 1,
        request=request,
        rdp=answer.rdp,
        epsilon=answer.epsilon,
        alert=answer.alert,
        repeated=answer.repeated,
    )
    spent = _guarantee(request, answer.epsilon)
    spend = BudgetSpent(
        scope=request.scope,
        tenant=request.tenant,
        session_id=request.session_id,
        reservation_id=request.reservation_id,
        steps=request.steps,
        spent=spent,
        ceiling=request.epsilon_ceiling,
    )
    alert = BudgetAlerted(
        scope=request.scope,
        tenant=request.tenant,
        session_id=request.session_id,
        spent=spent,
        ceiling=request.epsilon_ceiling,
        share=answer.epsilon / request.epsilon_ceiling,
    )
    events: list[Message] = [] if answer.repeated else [spend, alert] if answer.alert else [spend]
    return LedgerRecord(scope=request.scope, entry=entry), events


def _refused(scope: Scope, request: ReserveBudget, answer: Refused) -> tuple[LedgerRecord, Sequence[Message]]:
    entry = BudgetRefused(
        sequence=scope.ledger.sequence + 1,
        request=request,
        reason=answer.reason,
        message=answer.message,
        epsilon=answer.epsilon,
        acceptable_steps=answer.acceptable_steps,
    )
    halt = BudgetHalted(
        scope=request.scope,
        tenant=request.tenant,
        session_id=request.session_id,
        reservation_id=request.reservation_id,
        reason=answer.reason,
        message=answer.message,
        spent=_guarantee(request, answer.epsilon),
        ceiling=request.epsilon_ceiling,
        acceptable_steps=answer.acceptable_steps,
    )
    return LedgerRecord(scope=request.scope, entry=entry), [halt]


def _unaccounted(scope: Scope, request: ReserveBudget) -> Refused:
    """Refuse a promise whose cost the accountant does not compute: charging it as another one would under-count."""
    found = f"unit {request.mechanism.unit} and adjacency {request.mechanism.adjacency}"
    return Refused(
        reason="unsupported-privacy",
        message=f"mechanism: got {found}, expected unit record and adjacency add-remove",
        epsilon=epsilon_of(scope.ledger.rdp, request.delta),
        acceptable_steps=0,
    )


def _session_stopped(scope: Scope, request: ReserveBudget) -> Refused:
    return Refused(
        reason=_SESSION_STOPPED,
        message="the session did what its grants do not cover, and was stopped; look for BudgetViolated on its scope",
        epsilon=epsilon_of(scope.ledger.rdp, request.delta),
        acceptable_steps=0,
    )


def _mechanism_changed(scope: Scope, request: ReserveBudget) -> tuple[LedgerRecord, Sequence[Message]]:
    """Refuse a session that asks for another mechanism than it was granted before, and raise the alarm."""
    message = "the session was granted another mechanism before; a session keeps one mechanism"
    epsilon = epsilon_of(scope.ledger.rdp, request.delta)
    answer = Refused(reason=_MECHANISM_CHANGED, message=message, epsilon=epsilon, acceptable_steps=0)
    record, events = _refused(scope, request, answer)
    return record, [*events, _violation(request, _MECHANISM_CHANGED, message)]


def _settle(scope: Scope, request: SettleBudget) -> tuple[LedgerRecord, Sequence[Message]]:
    """Note what was used. More than was granted, or without a grant, is a violation; nothing is ever refunded."""
    entry = BudgetSettled(sequence=scope.ledger.sequence + 1, request=request)
    overspend = _overspend(scope, request)
    events = [] if overspend is None else [_violation(request, *overspend)]
    return LedgerRecord(scope=request.scope, entry=entry), events


def _noted(scope: Scope, request: ReportViolation) -> tuple[LedgerRecord, Sequence[Message]]:
    """Note a violation that a session found in itself, and raise the alarm."""
    entry = ViolationNoted(sequence=scope.ledger.sequence + 1, request=request)
    return LedgerRecord(scope=request.scope, entry=entry), [_violation(request, request.reason, request.message)]


def _overspend(scope: Scope, request: SettleBudget) -> tuple[str, str] | None:
    """Return why a settlement is a violation: its reason and message; None where a grant covers it."""
    grant = scope.ledger.grants.get(request.reservation_id)
    if grant is None:
        return "spend-without-grant", "steps were run that no grant covers"
    if request.steps_used > grant.steps:
        return "spend-over-grant", f"{request.steps_used} steps were run, {grant.steps} were granted"
    return None


def _violation(request: Request, reason: str, message: str) -> BudgetViolated:
    return BudgetViolated(
        scope=request.scope,
        tenant=request.tenant,
        session_id=request.session_id,
        reason=reason,
        message=message,
    )


def _guarantee(request: ReserveBudget, epsilon: float) -> PrivacyGuarantee:
    return PrivacyGuarantee(
        epsilon=epsilon,
        delta=request.delta,
        unit=request.mechanism.unit,
        adjacency=request.mechanism.adjacency,
        accountant=Accountant.RDP,
        unsafe_seeded_noise=request.mechanism.unsafe_seeded_noise,
    )
