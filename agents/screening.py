"""The screening stage: every record of `flywheel.samples` becomes a decision, or a dead letter with its reason."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from ctrainer.agents.compliance.judgement import Court, Examination
from ctrainer.agents.compliance.shape import MAX_RECORD_BYTES, shape
from ctrainer.agents.compliance.verdicts import Verdicts
from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.publication import Publication
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.errors import ContractError

STAGE = "screening"
RECORDS_PER_TURN = 64
"""After so many records the event loop gets a turn, so that heartbeats go out while a large batch is judged."""


class _Examined(NamedTuple):
    record: Record
    examination: Examination


class Screening:
    """Judges batches under one constitution.

    A pure function of the batch, the constitution and the policy; what it remembers changes its speed only.
    """

    def __init__(
        self,
        *,
        court: Court,
        verdicts: Verdicts,
        publication: Publication,
        max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:
        self._court = court
        self._verdicts = verdicts
        self._publication = publication
        self._max_record_bytes = max_record_bytes

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return, for each record in order, the sample (if it goes on) and the decision, or its dead letter.

        Raises:
            PolicyError: a sample has no decision; nothing of the batch may be delivered.
        """
        docket: list[_Examined | OutputRecord] = []
        for number, record in enumerate(batch.records, start=1):
            docket.append(self._examine(record))
            if number % RECORDS_PER_TURN == 0:
                await asyncio.sleep(0)
        examined = [entry for entry in docket if isinstance(entry, _Examined)]
        decisions = await self._verdicts.of([entry.examination.case for entry in examined])
        outputs: list[OutputRecord] = []
        for entry in docket:
            if isinstance(entry, _Examined):
                decision = decisions.get(entry.examination.case, self._verdicts.outage)
                outputs += self._publication.of(entry.record, entry.examination, decision)
            else:
                outputs.append(entry)
        return outputs

    def _examine(self, record: Record) -> _Examined | OutputRecord:
        try:
            sample = shape(record.value, record.headers, max_bytes=self._max_record_bytes)
        except ContractError as error:
            return dead_letter(record, stage=STAGE, reason=error.reason, message=str(error))
        return _Examined(record, self._court.examine(sample))
