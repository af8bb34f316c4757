"""The screening stage: every record of `flywheel.samples` becomes a decision, or a dead letter with its reason."""

import asyncio
from collections.abc import Iterator, Sequence

from msgspec import Struct

from ctrainer.agents.compliance.judgement import Court, Examination
from ctrainer.agents.compliance.shape import MAX_RECORD_BYTES, ShapedSample, shape
from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.events import event_record
from ctrainer.agents.force import JudgesInForce
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.constitution import ConstitutionInForce
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.topics import CONSTITUTION_EVENTS

STAGE = "screening"
RECORDS_PER_TURN = 256
BYTES_PER_TURN = 1_048_576
"""So many records or bytes are looked at together. Then the event loop gets a turn, so that heartbeats go out."""


class _Examined(Struct, frozen=True):
    record: Record
    examination: Examination


class Screening:
    """Judges each batch by the constitution that is in force when it begins.

    A pure function of the batch, the constitution and the policy; what it remembers changes its speed only.
    """

    def __init__(self, *, judges: JudgesInForce, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self._judges = judges
        self._max_record_bytes = max_record_bytes
        self._announced: dict[int, tuple[str, int]] = {}

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return, for each record in order, the sample (if it goes on) and the decision, or its dead letter.

        Before the first decision under another constitution stands the event that says so.

        Raises:
            PolicyError: a sample has no decision; nothing of the batch may be delivered.
        """
        court, verdicts, publication = self._judges()
        docket: list[_Examined | OutputRecord] = []
        for records in _turns(batch.records):
            docket += self._examine(records, court)
            await asyncio.sleep(0)
        examined = [entry.examination for entry in docket if isinstance(entry, _Examined)]
        decided = iter(await court.decide(verdicts, examined))
        outputs = self._announcement(batch, court.reference)
        for entry in docket:
            if isinstance(entry, _Examined):
                outputs += publication.of(entry.record, *next(decided))
            else:
                outputs.append(entry)
        return outputs

    def _announcement(self, batch: RecordBatch, reference: ConstitutionReference) -> list[OutputRecord]:
        """Return the event for the first batch under a constitution, and again when that batch comes again."""
        first = batch.records[0]
        digest, offset = self._announced.get(batch.partition, ("", -1))
        if digest == reference.digest and offset != first.offset:
            return []
        self._announced[batch.partition] = (reference.digest, first.offset)
        data = ConstitutionInForce(
            topic=batch.topic, partition=batch.partition, from_offset=first.offset, constitution=reference
        )
        key = f"{batch.topic}/{batch.partition}"
        return [event_record(topic=CONSTITUTION_EVENTS, key=key, data=data, cause=first, constitution=reference)]

    def _examine(self, records: Sequence[Record], court: Court) -> Iterator[_Examined | OutputRecord]:
        shaped = [self._shaped(record) for record in records]
        examined = iter(court.examine_all([sample for sample in shaped if isinstance(sample, ShapedSample)]))
        for record, sample in zip(records, shaped, strict=True):
            yield _Examined(record, next(examined)) if isinstance(sample, ShapedSample) else sample

    def _shaped(self, record: Record) -> ShapedSample | OutputRecord:
        try:
            return shape(record.value, record.headers, max_bytes=self._max_record_bytes)
        except ContractError as error:
            return dead_letter(record, stage=STAGE, reason=error.reason, message=str(error))


def _turns(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Yield records in runs between which the event loop gets a turn."""
    start = size = 0
    for number, record in enumerate(records):
        size += len(record.value or b"")
        if size >= BYTES_PER_TURN or number - start >= RECORDS_PER_TURN - 1:
            yield records[start : number + 1]
            start, size = number + 1, 0
    if start < len(records):
        yield records[start:]
