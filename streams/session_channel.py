"""The one line between a training session and Kafka.

Its producer's `transactional.id` names the session, so a second process of the same session fences the first: a zombie
is stopped at its next reservation, before any noise is drawn.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.errors import ProducerFenced

from ctrainer.agents.events import event_record, read_event
from ctrainer.agents.records import OutputRecord, Record
from ctrainer.schemas.adapters import AdapterPublished, AdapterRejected
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.envelope import binary_headers
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import (
    Accountant,
    BudgetGranted,
    BudgetRefused,
    BudgetSettled,
    DeclareNonPrivate,
    LedgerEntry,
    LedgerRecord,
    NoGuarantee,
    NoMechanism,
    NonPrivateDeclared,
    PrivacyGuarantee,
    ReportViolation,
    ReserveBudget,
    SettleBudget,
    ViolationNoted,
)
from ctrainer.schemas.topics import (
    ADAPTERS_PUBLISHED,
    PRIVACY_LEDGER,
    PRIVACY_REQUESTS,
    TRAINING_PROGRESS,
)
from ctrainer.schemas.training import (
    SessionAdvanced,
    SessionChecked,
    SessionProgressed,
    SessionState,
    TrainingAssignment,
)
from ctrainer.streams.event_watch import EventWatch, NoAnswerError, watch
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import Location
from ctrainer.streams.partitioning import partition_for
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.trainer.accounting import epsilon_of

_TRANSACTION_TIMEOUT_MS = 10_000
_PATIENCE_SECONDS = 2.0
_LOG = logging.getLogger(__name__)


LedgerAnswer: TypeAlias = BudgetGranted | BudgetRefused | NonPrivateDeclared
"""What the ledger says to a reservation, or to a declaration in place of it."""


class SessionFencedError(Exception):
    """Another process has taken this session over; this one must end and touch nothing more."""


class SessionStoppedError(Exception):
    """The session was asked to stop while it waited for the ledger. What it had asked for stays charged if granted."""


@dataclass(slots=True, kw_only=True)
class SessionChannel:
    """Speaks for one session. Every message is its own transaction of the session's fencing producer.

    `granted_before` is the step below which former processes of the session may have released every one: what was
    granted to them and not settled as unused. `declared` is the ledger's word that the session is not private.
    """

    assignment: TrainingAssignment
    constitution: ConstitutionReference
    reader: TopicReader
    producer: AIOKafkaProducer
    should_stop: Callable[[], bool] = lambda: False
    spent: PrivacyGuarantee | NoGuarantee | None = None
    granted: list[BudgetGranted] = field(default_factory=list)
    granted_before: int = 0
    declared: NonPrivateDeclared | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _ledger: EventWatch | None = field(default=None, init=False)
    _opened: AsyncExitStack = field(default_factory=AsyncExitStack, init=False)

    @classmethod
    async def open(
        cls,
        settings: Settings,
        location: Location,
        assignment: TrainingAssignment,
        constitution: ConstitutionReference,
        *,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> "SessionChannel":
        """Fence every former process of the session, and learn what its scope has spent so far."""
        security = client_security(settings)
        producer = AIOKafkaProducer(
            bootstrap_servers=location.bootstrap_servers,
            transactional_id=f"{settings.application}-session-{assignment.session_id}",
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            **security,
        )
        await producer.start()
        reader = TopicReader(bootstrap_servers=location.bootstrap_servers, security=security)
        channel = cls(
            assignment=assignment,
            constitution=constitution,
            reader=reader,
            producer=producer,
            should_stop=should_stop,
        )
        await channel._learn_spend()
        return channel

    async def close(self) -> None:
        """Close the producer, and stop watching the ledger."""
        await self._opened.aclose()
        await self.producer.stop()

    async def advanced(
        self, state: SessionState, step: int, *, reason: str | None = None, message: str | None = None
    ) -> None:
        """Publish that the session reached a state or a step, and settle the blocks that led there.

        A block that was asked for ahead waits until the session is past it, or at its end: then it went unused.
        """
        over = [
            grant for grant in self.granted if state is not SessionState.TRAINING or grant.request.first_step < step
        ]
        settled = [self._settlement(grant, step) for grant in over]
        await self._publish([self._advanced(state, step, reason, message), *settled])
        self.granted = [grant for grant in self.granted if grant not in over]

    async def settle(self, step: int) -> None:
        """Settle what was granted and is not settled yet, for a session that stops at `step` and goes on later."""
        await self._publish([self._settlement(grant, step) for grant in self.granted])
        self.granted = []

    async def progressed(self, step: int, *, steps_per_second: float) -> None:
        """Tell how far the session is, between two blocks."""
        left = self.assignment.steps - step
        data = SessionProgressed(
            session_id=self.assignment.session_id,
            tenant=self.assignment.tenant,
            step=step,
            steps=self.assignment.steps,
            spent=self.spent,
            steps_per_second=steps_per_second,
            seconds_left=left / steps_per_second if steps_per_second else 0.0,
        )
        await self._publish([self._event(TRAINING_PROGRESS, data.session_id, data, "live", step)])

    async def violated(self, step: int, *, reason: str, message: str) -> None:
        """Report that the session broke its plan, and end it as failed, in one transaction.

        The ledger answers with `BudgetViolated`, and grants the session nothing more.
        """
        report = ReportViolation(
            scope=self.assignment.scope,
            tenant=self.assignment.tenant,
            session_id=self.assignment.session_id,
            reason=reason,
            message=message,
        )
        failed = self._advanced(SessionState.FAILED, step, reason, message)
        await self._publish([self._request(report, f"{report.session_id}/violation"), failed])

    async def checked(self, found: SessionChecked) -> None:
        """Publish what a check during training saw."""
        await self._publish([self._event(TRAINING_PROGRESS, found.session_id, found, "check", found.step)])

    async def published(self, adapter: AdapterPublished, step: int) -> None:
        """Publish the adapter and the session's completion together."""
        key = f"{adapter.tenant}/{adapter.adapter_id}"
        await self._publish(
            [
                self._event(ADAPTERS_PUBLISHED, key, adapter, "published", step),
                self._advanced(SessionState.COMPLETED, step, None, None),
            ]
        )

    async def rejected(self, adapter: AdapterRejected, step: int) -> None:
        """Publish what the release gate refused, and the session's end, together."""
        message = f"the release gate refused the adapter: {', '.join(adapter.release.reasons)}"
        await self._publish(
            [
                self._event(TRAINING_PROGRESS, adapter.session_id, adapter, "gate", step),
                self._advanced(SessionState.REJECTED, step, "gate-rejected", message),
            ]
        )

    async def reserve(self, first_step: int, steps: int) -> LedgerAnswer:
        """Ask the ledger for a block and wait for its entry, as long as it takes.

        A reservation has a fresh id: a block that a crash interrupted is charged again, never run on an old grant. For
        a session without privacy the ledger is told so, once, in place of a reservation.

        Raises:
            SessionFencedError: another process has this session now.
            SessionStoppedError: the session was asked to stop before the answer came.
        """
        if self.declared is not None:
            return self.declared
        request = self._reservation(first_step, steps)
        ledger = await self._watched_ledger()
        await self._publish([self._request(request, request.reservation_id)])
        answer = None
        while answer is None:
            if self.should_stop():
                raise SessionStoppedError(self.assignment.session_id)
            answer = await self._answer(ledger, request.reservation_id)
        if isinstance(answer, BudgetGranted):
            self.granted.append(answer)
            self.spent = self._guarantee(answer.epsilon, unsafe_non_private=answer.unsafe_non_private)
        if isinstance(answer, NonPrivateDeclared):
            self._not_private(answer)
        return answer

    async def _watched_ledger(self) -> EventWatch:
        """Return the watch on the partition of our scope, which stays open: to open one takes longer than a grant."""
        if self._ledger is None:
            partition = await self._ledger_partition()
            self._ledger = await self._opened.enter_async_context(
                watch(self.reader, [PRIVACY_LEDGER], partition=partition)
            )
        return self._ledger

    async def _ledger_partition(self) -> int:
        ends = await self.reader.end_offsets(PRIVACY_LEDGER)
        return partition_for(self.assignment.scope.encode(), len(ends), 0)

    async def _answer(self, ledger: EventWatch, reservation_id: str) -> LedgerAnswer | None:
        """Wait a while for the ledger; None means: not yet."""
        try:
            answer: LedgerAnswer = await ledger.first(
                lambda record: answer_to(reservation_id, record),
                within_seconds=_PATIENCE_SECONDS,
                what="entry in the privacy ledger",
            )
        except NoAnswerError:
            _LOG.warning("session %s waits for the privacy ledger", self.assignment.session_id)
            return None
        return answer

    async def _learn_spend(self) -> None:
        """Learn from the ledger what the scope has spent, and what was granted to former processes of the session."""
        blocks: dict[str, range] = {}
        newest: BudgetGranted | None = None
        non_private = False
        async for record in self.reader.read_topic(PRIVACY_LEDGER, await self._ledger_partition()):
            entry = read_event(record.value, LedgerRecord)
            if entry.scope != self.assignment.scope:
                continue
            ours = entry.entry.request.session_id == self.assignment.session_id
            if isinstance(entry.entry, NonPrivateDeclared):
                non_private = True
                if ours:
                    self._not_private(entry.entry)
            if isinstance(entry.entry, BudgetGranted):
                newest = entry.entry
            if ours:
                blocks |= _may_have_run(blocks, entry.entry)
        if newest is not None:
            # The last grant may be another session's, with another delta: the spend is worth what it is at ours.
            epsilon = epsilon_of(newest.rdp, self.assignment.request.privacy.delta)
            self.spent = self._guarantee(epsilon, unsafe_non_private=non_private)
        self.granted_before = max((block.stop for block in blocks.values() if block), default=0)

    def _not_private(self, declared: NonPrivateDeclared) -> None:
        self.declared, self.spent = declared, NoGuarantee(unsafe_non_private=True)

    async def _publish(self, outputs: Sequence[OutputRecord]) -> None:
        """Publish in a transaction; a block is asked for ahead while progress is told, so each waits for its turn."""
        try:
            async with self._turn, self.producer.transaction():
                sent = [
                    await self.producer.send(
                        output.topic,
                        key=output.key,
                        value=output.value,
                        headers=list(output.headers),
                        timestamp_ms=output.timestamp,
                    )
                    for output in outputs
                ]
                await asyncio.gather(*sent)
        except ProducerFenced as error:
            raise SessionFencedError(self.assignment.session_id) from error

    def _reservation(self, first_step: int, steps: int) -> ReserveBudget | DeclareNonPrivate:
        assignment = self.assignment
        if isinstance(assignment.mechanism, NoMechanism):
            return DeclareNonPrivate(
                reservation_id=str(uuid4()),
                scope=assignment.scope,
                tenant=assignment.tenant,
                session_id=assignment.session_id,
                dataset_id=assignment.request.dataset_id,
                steps=assignment.steps,
            )
        return ReserveBudget(
            reservation_id=str(uuid4()),
            scope=assignment.scope,
            tenant=assignment.tenant,
            session_id=assignment.session_id,
            first_step=first_step,
            steps=steps,
            mechanism=assignment.mechanism,
            epsilon_ceiling=assignment.request.privacy.epsilon,
            delta=assignment.request.privacy.delta,
        )

    def _settlement(self, granted: BudgetGranted, step: int) -> OutputRecord:
        request = granted.request
        return self._request(
            SettleBudget(
                reservation_id=request.reservation_id,
                scope=request.scope,
                tenant=request.tenant,
                session_id=request.session_id,
                steps_used=max(0, step - request.first_step),
            ),
            request.reservation_id,
        )

    def _request(
        self, request: ReserveBudget | SettleBudget | ReportViolation | DeclareNonPrivate, identifier: str
    ) -> OutputRecord:
        attributes = {
            "id": identifier,
            "type": request.kind,
            "source": f"/sessions/{request.session_id}",
            "constitutionhash": self.constitution.hash,
            "constitutiondigest": self.constitution.digest,
        }
        return OutputRecord(
            topic=PRIVACY_REQUESTS,
            key=request.scope.encode(),
            value=request.to_json(),
            timestamp=_now(),
            headers=binary_headers(attributes),
        )

    def _advanced(self, state: SessionState, step: int, reason: str | None, message: str | None) -> OutputRecord:
        data = SessionAdvanced(
            session_id=self.assignment.session_id,
            tenant=self.assignment.tenant,
            state=state,
            step=step,
            steps=self.assignment.steps,
            spent=self.spent,
            reason=reason,
            message=message,
        )
        revision = self.assignment.revision
        moment = f"{state.value}-{revision}" if revision else state.value
        return self._event(TRAINING_PROGRESS, data.session_id, data, moment, step)

    def _event(self, topic: str, key: str, data: Message, moment: str, step: int) -> OutputRecord:
        """Return an event that names its session, moment and step as its source: the same id if it is said again."""
        place = f"sessions/{self.assignment.session_id}/{moment}"
        cause = Record(topic=place, partition=0, offset=step, timestamp=_now(), key=None, value=None)
        return event_record(topic=topic, key=key, data=data, cause=cause, constitution=self.constitution)

    def _guarantee(self, epsilon: float, *, unsafe_non_private: bool) -> PrivacyGuarantee | NoGuarantee:
        mechanism = self.assignment.mechanism
        if isinstance(mechanism, NoMechanism):
            return NoGuarantee(unsafe_non_private=True)
        return PrivacyGuarantee(
            epsilon=epsilon,
            delta=self.assignment.request.privacy.delta,
            unit=mechanism.unit,
            adjacency=mechanism.adjacency,
            accountant=Accountant.RDP,
            unsafe_seeded_noise=mechanism.unsafe_seeded_noise,
            unsafe_non_private=unsafe_non_private,
        )


def answer_to(reservation_id: str, record: Record) -> LedgerAnswer | None:
    """Return the ledger's answer to a reservation, or None where the record is about another one."""
    entry = read_event(record.value, LedgerRecord).entry
    if isinstance(entry, BudgetSettled | ViolationNoted) or entry.request.reservation_id != reservation_id:
        return None
    return entry


def _may_have_run(known: Mapping[str, range], entry: LedgerEntry) -> dict[str, range]:
    """Return the steps of a reservation that may have run, as an entry about it tells; nothing where it tells nothing.

    A grant may have been used whole until it is settled.
    """
    if isinstance(entry, BudgetGranted):
        request = entry.request
        return {request.reservation_id: range(request.first_step, request.first_step + request.steps)}
    if isinstance(entry, BudgetSettled) and entry.request.reservation_id in known:
        return {entry.request.reservation_id: known[entry.request.reservation_id][: entry.request.steps_used]}
    return {}


def _now() -> int:
    return int(time.time() * 1_000)
