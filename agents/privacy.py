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
    BudgetAlerted,
    BudgetGranted,
    BudgetHalted,
    BudgetRefused,
    BudgetSettled,
    BudgetSpent,
    BudgetViolated,
    DeclareNonPrivate,
    LedgerEntry,
    LedgerRecord,
    LedgerRequest,
    Mechanism,
    NoGuarantee,
    NonPrivateDeclared,
    NonPrivateTrained,
    PrivacyGuarantee,
    PrivacyMode,
    ReportViolation,
    ReserveBudget,
    SettleBudget,
    ViolationNoted,
)
from ctrainer.schemas.topics import PRIVACY_EVENTS, PRIVACY_LEDGER
from ctrainer.trainer.accounting import epsilon_of
from ctrainer.trainer.ledger import Grant, Granted, LedgerState, Refused, reserve
from ctrainer.trainer.release_cost import release_rdp, releases, unaccounted

STAGE = "privacy"
_MECHANISM_CHANGED = "mechanism-changed"
_SESSION_STOPPED = "session-stopped"
_STOPPED_MESSAGE = "the session did what its grants do not cover, and was stopped; look for BudgetViolated on its scope"
Request: TypeAlias = ReserveBudget | SettleBudget | ReportViolation | DeclareNonPrivate
_REQUEST: TypeAdapter[Request] = TypeAdapter(LedgerRequest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The ledger of one scope: all of it follows from the entries.

    Which mechanism each session was granted, which steps of each single pass may have run (by reservation), which
    sessions were stopped, and which trained without privacy.
    """

    ledger: LedgerState = field(default_factory=LedgerState)
    mechanisms: MappingProxyType[str, Mechanism] = field(default_factory=lambda: MappingProxyType({}))
    passes: MappingProxyType[str, MappingProxyType[str, range]] = field(default_factory=lambda: MappingProxyType({}))
    stopped: frozenset[str] = frozenset()
    non_private: frozenset[str] = frozenset()

    def runs(self, session_id: str) -> list[range]:
        """Return the steps of a single pass that may have run, by reservation."""
        return list(self.passes[session_id].values()) if session_id in self.passes else []

    def with_run(self, session_id: str, reservation_id: str, steps: range) -> "Scope":
        """Return the scope with the steps of a single pass that a reservation may have run."""
        runs = MappingProxyType({**self.passes.get(session_id, {}), reservation_id: steps})
        return replace(self, passes=MappingProxyType({**self.passes, session_id: runs}))


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
    if isinstance(entry, BudgetGranted):
        return _after_grant(scope, entry)
    found = replace(scope, ledger=replace(scope.ledger, sequence=entry.sequence), stopped=_stopped(scope, entry))
    if isinstance(entry, NonPrivateDeclared):
        return replace(found, non_private=scope.non_private | {entry.request.session_id})
    return _after_settlement(found, entry.request) if isinstance(entry, BudgetSettled) else found


def _after_grant(scope: Scope, entry: BudgetGranted) -> Scope:
    request = entry.request
    grant = Grant(fingerprint=fingerprint(request), steps=request.steps)
    grants = MappingProxyType({**scope.ledger.grants, request.reservation_id: grant})
    granted = replace(
        scope,
        ledger=LedgerState(rdp=entry.rdp, grants=grants, sequence=entry.sequence),
        mechanisms=MappingProxyType({**scope.mechanisms, request.session_id: request.mechanism}),
    )
    if entry.repeated or not _is_pass(request.mechanism):
        return granted
    return granted.with_run(request.session_id, request.reservation_id, _block(request))


def _after_settlement(scope: Scope, request: SettleBudget) -> Scope:
    """Return a scope in which the steps of a single pass that never ran are still to run; the charge stays."""
    granted = (
        scope.passes[request.session_id].get(request.reservation_id) if request.session_id in scope.passes else None
    )
    if granted is None or request.steps_used >= len(granted):
        return scope
    return scope.with_run(request.session_id, request.reservation_id, granted[: request.steps_used])


def _stopped(scope: Scope, entry: LedgerEntry) -> frozenset[str]:
    """Return the sessions that are stopped after an entry: derived from the ledger alone, so a new owner knows it."""
    if isinstance(entry, ViolationNoted):
        violated = True
    elif isinstance(entry, BudgetSettled):
        violated = _overspend(scope, entry.request) is not None
    else:
        violated = isinstance(entry, BudgetRefused) and entry.reason == _MECHANISM_CHANGED
    return scope.stopped | {entry.request.session_id} if violated else scope.stopped


def _is_pass(mechanism: Mechanism) -> bool:
    return PrivacyMode(mechanism.mode).is_single_pass


def _block(request: ReserveBudget) -> range:
    return range(request.first_step, request.first_step + request.steps)


def fingerprint(request: ReserveBudget) -> str:
    """Return the digest by which the same request is known again."""
    return content_digest(request.to_json())


async def _decide(scope: Scope, request: Request) -> tuple[LedgerRecord, Sequence[Message]]:
    if isinstance(request, SettleBudget):
        return _settle(scope, request)
    if isinstance(request, ReportViolation):
        return _noted(scope, request)
    if isinstance(request, DeclareNonPrivate):
        return _declared(scope, request)
    objection = _objection(scope, request)
    if objection is not None:
        return _refused(scope, request, objection)
    known = scope.mechanisms.get(request.session_id)
    if known is not None and known != request.mechanism:
        return _mechanism_changed(scope, request)
    # The first call imports Opacus and torch, which takes seconds: never on the event loop.
    release = await asyncio.to_thread(release_rdp, request.mechanism)
    _state, answer = reserve(
        scope.ledger,
        reservation_id=request.reservation_id,
        fingerprint=fingerprint(request),
        step_rdp=release,
        steps=request.steps,
        epsilon_ceiling=request.epsilon_ceiling,
        delta=request.delta,
        releases=_releases(scope, request),
    )
    return _granted(scope, request, answer) if isinstance(answer, Granted) else _refused(scope, request, answer)


def _releases(scope: Scope, request: ReserveBudget) -> int:
    """Return how many releases a reservation costs: its steps; in a single pass, how much oftener a step may run."""
    if not _is_pass(request.mechanism):
        return request.steps
    return releases(scope.runs(request.session_id), _block(request))


def _objection(scope: Scope, request: ReserveBudget) -> Refused | None:
    """Return why a reservation is refused whatever it costs, or None."""
    if request.session_id in scope.stopped:
        return _refusal(scope, request, _SESSION_STOPPED, _STOPPED_MESSAGE)
    fault = unaccounted(request.mechanism)
    if fault is not None:
        return _refusal(scope, request, "unsupported-privacy", fault)
    foreign = next(
        (known for known in scope.mechanisms.values() if _promise(known) != _promise(request.mechanism)), None
    )
    if foreign is None:
        return None
    found, expected = (" and ".join(_promise(one)) for one in (request.mechanism, foreign))
    message = f"mechanism: got {found}, expected {expected} as before: spends of different kinds do not add up"
    return _refusal(scope, request, "promise-mixed", message)


def _promise(mechanism: Mechanism) -> tuple[str, str]:
    """Return what a scope's spend is about; a spend for records says nothing of users."""
    return f"unit {mechanism.unit.value}", f"adjacency {mechanism.adjacency.value}"


def _refusal(scope: Scope, request: ReserveBudget, reason: str, message: str) -> Refused:
    epsilon = epsilon_of(scope.ledger.rdp, request.delta)
    return Refused(reason=reason, message=message, epsilon=epsilon, acceptable_steps=0)


def _granted(scope: Scope, request: ReserveBudget, answer: Granted) -> tuple[LedgerRecord, Sequence[Message]]:
    entry = BudgetGranted(
        sequence=scope.ledger.sequence + 1,
        request=request,
        rdp=answer.rdp,
        epsilon=answer.epsilon,
        alert=answer.alert,
        repeated=answer.repeated,
        unsafe_non_private=bool(scope.non_private),
    )
    spent = _guarantee(scope, request, answer.epsilon)
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
        spent=_guarantee(scope, request, answer.epsilon),
        ceiling=request.epsilon_ceiling,
        acceptable_steps=answer.acceptable_steps,
    )
    return LedgerRecord(scope=request.scope, entry=entry), [halt]


def _mechanism_changed(scope: Scope, request: ReserveBudget) -> tuple[LedgerRecord, Sequence[Message]]:
    """Refuse a session that asks for another mechanism than it was granted before, and raise the alarm."""
    message = "the session was granted another mechanism before; a session keeps one mechanism"
    record, events = _refused(scope, request, _refusal(scope, request, _MECHANISM_CHANGED, message))
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


def _declared(scope: Scope, request: DeclareNonPrivate) -> tuple[LedgerRecord, Sequence[Message]]:
    """Note that a session trains without privacy: nothing is charged, and the scope never looks private again."""
    entry = NonPrivateDeclared(sequence=scope.ledger.sequence + 1, request=request)
    trained = NonPrivateTrained(
        scope=request.scope,
        tenant=request.tenant,
        session_id=request.session_id,
        dataset_id=request.dataset_id,
        steps=request.steps,
        spent=NoGuarantee(unsafe_non_private=True),
    )
    return LedgerRecord(scope=request.scope, entry=entry), [trained]


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


def _guarantee(scope: Scope, request: ReserveBudget, epsilon: float) -> PrivacyGuarantee:
    return PrivacyGuarantee(
        epsilon=epsilon,
        delta=request.delta,
        unit=request.mechanism.unit,
        adjacency=request.mechanism.adjacency,
        accountant=Accountant.RDP,
        unsafe_seeded_noise=request.mechanism.unsafe_seeded_noise,
        unsafe_non_private=bool(scope.non_private),
    )
