"""The constitution stage: each document of `constitution.updates` is enacted, or refused with all its faults."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.loading import ConstitutionError, load_constitution
from ctrainer.agents.events import event_record, read_event
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution import Constitution, ConstitutionUpdated, UpdateOutcome
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.envelope import event_type
from ctrainer.schemas.identity import source_reference
from ctrainer.schemas.signature import ANY_TENANT
from ctrainer.schemas.topics import CONSTITUTION_EVENTS, CONSTITUTION_UPDATES

MOST_FAULTS = 100
_MOST_CHARACTERS = 500
"""Of one fault: an event has room for 64 KiB."""
_UNKNOWN = "unknown"
_UPDATED = f'"{event_type(ConstitutionUpdated)}"'.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstitutionDesk:
    """Decides which document may come into force: one signed by a key of every tenant, and the pinned one, if any."""

    desk: CommandDesk
    governance_hash: str
    pinned_digest: str | None = None

    def read(self, record: Record, *, is_enacted: bool = False) -> Constitution:
        """Return the document of a record that may come into force.

        Who may sign changes with the keyring; that a document was enacted does not.

        Raises:
            ConstitutionError: with every reason why it may not.
        """
        refusal = None if is_enacted else self.desk.signature_objection(record, ANY_TENANT)
        if refusal is not None:
            raise ConstitutionError([f"{refusal.reason}: {refusal.message}"])
        constitution = load_constitution(_text(record), governance_hash=self.governance_hash)
        if record.key != constitution.id.encode():
            raise ConstitutionError([f"record key: expected the constitution id {constitution.id!r}"])
        if self.pinned_digest not in {None, constitution.digest}:
            raise ConstitutionError(
                [f"digest: got {constitution.digest}, this deployment is pinned to {self.pinned_digest}"]
            )
        return constitution


def is_outcome(record: Record) -> bool:
    """Return whether a record of `constitution.events` says what became of a document."""
    return _UPDATED in (record.value or b"")


async def enacted_documents(topics: Topics) -> list[Record]:
    """Return the records of `constitution.updates` that were enacted, in order: what became of one never changes."""
    outcomes = {
        str(orjson.loads(event.value or b"")["source"]): read_event(event.value, ConstitutionUpdated).outcome
        async for event in topics.read_topic(CONSTITUTION_EVENTS)
        if is_outcome(event)
    }
    return [
        record
        async for record in topics.read_topic(CONSTITUTION_UPDATES)
        if outcomes.get(_place(record)) is UpdateOutcome.ENACTED
    ]


async def enacted_last(topics: Topics) -> ConstitutionReference | None:
    """Return the reference of the document that was enacted last, None before the first; no document is read."""
    last = None
    async for event in topics.read_topic(CONSTITUTION_EVENTS):
        if is_outcome(event):
            last = read_event(event.value, ConstitutionUpdated).constitution or last
    return last


class Constitutions:
    """The handler of `constitution.updates`: says what became of each document, of one in a batch.

    One that was enacted before is refused when the same bytes come again: anybody can copy a signed record, and so put
    an older constitution into force again. Who may do that signs it anew, with other bytes.
    """

    def __init__(self, desk: ConstitutionDesk, topics: Topics) -> None:
        self._desk = desk
        self._topics = topics

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return one event for each document. To read a large one takes its time: other work goes on meanwhile."""
        return [await self._answer(record) for record in batch.records]

    async def _answer(self, record: Record) -> OutputRecord:
        data = await self._outcome(record)
        reference = data.constitution or self._desk.desk.in_force()
        return event_record(
            topic=CONSTITUTION_EVENTS, key=data.constitution_id, data=data, cause=record, constitution=reference
        )

    async def _require_new(self, record: Record) -> None:
        enacted = await enacted_documents(self._topics)
        equal = next((one for one in enacted if one.offset < record.offset and one.value == record.value), None)
        if equal is not None:
            fault = f"repeated: {_place(equal)} has the same bytes; `ctrainer constitution enact` sends others"
            raise ConstitutionError([fault])

    async def _outcome(self, record: Record) -> ConstitutionUpdated:
        try:
            constitution = await asyncio.to_thread(self._desk.read, record)
            # Only now: whoever may not sign makes nobody read whole topics.
            await self._require_new(record)
        except ConstitutionError as error:
            key = (record.key or b"").decode("utf-8", "replace")[:256] or _UNKNOWN
            return ConstitutionUpdated(
                constitution_id=key,
                version=_UNKNOWN,
                outcome=UpdateOutcome.REFUSED,
                constitution=None,
                faults=told(error.faults),
            )
        return ConstitutionUpdated(
            constitution_id=constitution.id,
            version=constitution.version,
            outcome=UpdateOutcome.ENACTED,
            constitution=constitution.reference(),
        )


def _place(record: Record) -> str:
    return source_reference(record.topic, record.partition, record.offset)


def told(faults: Sequence[str]) -> tuple[str, ...]:
    """Return faults as an event has room for them.

    >>> told(["a", "b"]), told(["a"] * 102)[-1]
    (('a', 'b'), 'and 2 more: `ctrainer constitution check` tells all')
    """
    more = len(faults) - MOST_FAULTS
    rest = (f"and {more} more: `ctrainer constitution check` tells all",) if more > 0 else ()
    return (*(fault[:_MOST_CHARACTERS] for fault in faults[:MOST_FAULTS]), *rest)


def _text(record: Record) -> str:
    try:
        return (record.value or b"").decode()
    except UnicodeDecodeError as error:
        raise ConstitutionError([f"document: byte {error.start} is not UTF-8"]) from error
