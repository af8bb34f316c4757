import asyncio
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ctrainer.agents.events import read_event
from ctrainer.agents.privacy import PrivacyLedger, Scope, after
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.privacy import BudgetGranted, LedgerRecord, Mechanism, ReserveBudget, SettleBudget

CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")
SCOPES = ("acme/default", "acme/other")
NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
SESSIONS = st.sampled_from(["s1", "s2"])
NOISES = st.sampled_from([0.8, 0.8, 0.8, 1.1])


class Log:
    """A ledger topic in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, outputs: list[OutputRecord]) -> None:
        for output in outputs:
            if output.topic == "privacy.ledger":
                offset = len(self.records)
                record = Record(output.topic, 0, offset, 1_700_000_000_000, output.key, output.value, output.headers)
                self.records.append(record)

    async def read_topic(self, _topic: str, _partition: int | None = None) -> AsyncIterator[Record]:
        for record in list(self.records):
            yield record


class LedgerHistory(RuleBasedStateMachine):
    """Any order of requests, replays, failed transactions and new owners."""

    def __init__(self) -> None:
        super().__init__()
        self.log, self.offset = Log(), 0
        self.owner = self.new_owner()
        self.requests: list[ReserveBudget | SettleBudget] = []
        self.spent: dict[str, tuple[float, ...]] = dict.fromkeys(SCOPES, (0.0,))

    def new_owner(self) -> PrivacyLedger:
        owner = PrivacyLedger(topics=self.log, in_force=lambda: CONSTITUTION)  # type: ignore[arg-type]
        asyncio.run(owner.restore(0, self.offset))
        return owner

    def scopes(self, owner: PrivacyLedger) -> dict[str, Scope]:
        return dict(owner._partitions[0].before(self.offset))

    def send(self, request: ReserveBudget | SettleBudget) -> list[OutputRecord]:
        key, value = request.scope.encode(), request.to_json()
        record = Record("privacy.requests", 0, self.offset, 1_700_000_000_000, key, value)
        batch = RecordBatch(topic="privacy.requests", partition=0, epoch=1, records=(record,))
        return list(asyncio.run(self.owner(batch)))

    def commit(self, request: ReserveBudget | SettleBudget) -> None:
        self.log.append(self.send(request))
        self.offset += 1
        self.requests.append(request)

    @rule(name=NAMES, session=SESSIONS, scope=st.sampled_from(SCOPES), steps=st.integers(1, 60), noise=NOISES)
    def reserve(self, name: str, session: str, scope: str, steps: int, noise: float) -> None:
        mechanism = Mechanism(sampling_rate=0.02, noise_multiplier=noise, clip_norm=1.0, expected_batch_size=8.0)
        values: dict[str, Any] = {"reservation_id": name, "scope": scope, "tenant": "acme", "session_id": session}
        request = ReserveBudget(
            **values, first_step=0, steps=steps, mechanism=mechanism, epsilon_ceiling=3.0, delta=1e-5
        )
        self.commit(request)

    @rule(name=NAMES, session=SESSIONS, scope=st.sampled_from(SCOPES), steps=st.integers(0, 80))
    def settle(self, name: str, session: str, scope: str, steps: int) -> None:
        values: dict[str, Any] = {"reservation_id": name, "scope": scope, "tenant": "acme", "session_id": session}
        self.commit(SettleBudget(**values, steps_used=steps))

    @rule(place=st.integers(0, 1_000))
    def a_request_is_replayed_and_charges_nothing(self, place: int) -> None:
        granted = {entry.request.reservation_id for entry in self.grants()}
        known = [request for request in self.requests if request.reservation_id in granted]
        if not known:
            return
        request = known[place % len(known)]
        covered = any(entry.request == request for entry in self.grants())
        before = self.scopes(self.owner)[request.scope].ledger.rdp
        self.commit(request)
        if covered or isinstance(request, SettleBudget):
            assert self.scopes(self.owner)[request.scope].ledger.rdp == before

    @rule(steps=st.integers(1, 60))
    def a_transaction_fails_and_its_grant_never_was(self, steps: int) -> None:
        mechanism = Mechanism(sampling_rate=0.02, noise_multiplier=0.8, clip_norm=1.0, expected_batch_size=8.0)
        self.send(
            ReserveBudget(
                reservation_id=f"lost-{self.offset}",
                scope=SCOPES[0],
                tenant="acme",
                session_id="s1",
                first_step=0,
                steps=steps,
                mechanism=mechanism,
                epsilon_ceiling=3.0,
                delta=1e-5,
            )
        )
        self.owner = self.new_owner()

    @rule()
    def a_new_owner_takes_over(self) -> None:
        self.owner = self.new_owner()

    def grants(self) -> list[BudgetGranted]:
        entries = [read_event(record.value, LedgerRecord).entry for record in self.log.records]
        return [entry for entry in entries if isinstance(entry, BudgetGranted)]

    @invariant()
    def the_spend_never_decreases(self) -> None:
        for name, scope in self.scopes(self.owner).items():
            before = self.spent[name]
            assert all(new >= old for new, old in zip(scope.ledger.rdp, before, strict=False))
            self.spent[name] = scope.ledger.rdp

    @invariant()
    def a_reservation_is_charged_once(self) -> None:
        charged = [(g.request.scope, g.request.reservation_id) for g in self.grants() if not g.repeated]
        assert len(charged) == len(set(charged))

    @invariant()
    def a_new_owner_would_know_exactly_this(self) -> None:
        assert self.scopes(self.new_owner()) == self.scopes(self.owner)

    @invariant()
    def a_stopped_session_is_granted_nothing_more(self) -> None:
        stopped: set[tuple[str, str]] = set()
        state: dict[str, Scope] = {}
        for record in self.log.records:
            ledger = read_event(record.value, LedgerRecord)
            entry = ledger.entry
            if isinstance(entry, BudgetGranted):
                assert (ledger.scope, entry.request.session_id) not in stopped
            from_ledger = after(state.get(ledger.scope, Scope()), ledger)
            state[ledger.scope] = from_ledger
            stopped |= {(ledger.scope, session) for session in from_ledger.stopped}


LedgerHistory.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestLedgerHistory = LedgerHistory.TestCase
