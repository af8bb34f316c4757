"""The screening stage: every record of `flywheel.samples` becomes a decision, or a dead letter with its reason."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ctrainer.agents.compliance.judgement import Court, Examination, Judgement
from ctrainer.agents.compliance.policy import PolicyEngine
from ctrainer.agents.compliance.verdicts import VerdictCache, Verdicts
from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.compliance import SampleJudged
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.envelope import (
    Event,
    binary_headers,
    event_type,
    structured_headers,
    time_of,
    traceparent_of,
)
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.identity import canonical_bytes, content_digest, event_id, source_reference
from ctrainer.schemas.samples import AcceptedSample
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, SAMPLES_ACCEPTED

STAGE = "screening"
JudgedEvent = Event[SampleJudged]
RECORDS_PER_TURN = 64
"""After so many records the event loop gets a turn, so that heartbeats go out while a large batch is judged."""


class Screening:
    """Judges batches under one constitution.

    A pure function of the batch, the constitution and the policy; what it remembers changes its speed only.
    """

    def __init__(self, *, court: Court, engine: PolicyEngine, verdict_cache: VerdictCache | None = None) -> None:
        self._court = court
        self._engine = engine
        self._verdicts = Verdicts(engine, verdict_cache)

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return, for each record in order, the accepted sample (if any) and the decision, or its dead letter.

        Raises:
            PolicyError: an input has no decision; nothing of the batch may be delivered.
        """
        docket = [await self._examine(number, record) for number, record in enumerate(batch.records)]
        inputs = {case.key: case.examination.policy_input for case in docket if isinstance(case, _Case)}
        results = await self._verdicts.of(inputs)
        outputs: list[OutputRecord] = []
        for case in docket:
            if isinstance(case, _Case):
                judgement = self._court.conclude(case.examination, results[case.key], self._engine)
                outputs.extend(published(case.examination.record, judgement, self._court.reference))
            else:
                outputs.append(case)
        return outputs

    async def _examine(self, number: int, record: Record) -> "_Case | OutputRecord":
        if number % RECORDS_PER_TURN == RECORDS_PER_TURN - 1:
            await asyncio.sleep(0)
        try:
            examination = self._court.examine(record)
        except ContractError as error:
            return dead_letter(record, stage=STAGE, reason=error.reason, message=str(error))
        return _Case(key=self._key(examination), examination=examination)

    def _key(self, examination: Examination) -> str:
        """Return the digest of everything that the decision depends on; the input names the constitution."""
        versions = [self._engine.name, self._engine.revision, self._court.detectors.version]
        return content_digest(canonical_bytes([versions, examination.policy_input]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    key: str
    examination: Examination


def published(record: Record, judgement: Judgement, constitution: ConstitutionReference) -> Iterator[OutputRecord]:
    """Yield the records that a judgement becomes: first the sample, unless it was rejected, then the decision."""
    if judgement.accepted is not None:
        yield _sample_record(record, judgement.accepted, constitution)
    yield _event_record(record, judgement.event, constitution)


def _sample_record(record: Record, sample: AcceptedSample, constitution: ConstitutionReference) -> OutputRecord:
    source = source_reference(record.topic, record.partition, record.offset)
    attributes = {
        "id": event_id(source, AcceptedSample.__name__, constitution.digest),
        "source": source,
        "type": event_type(AcceptedSample),
        "subject": sample.sample_id,
        "time": time_of(record.timestamp).isoformat(),
        "constitutionhash": constitution.hash,
        "constitutiondigest": constitution.digest,
    }
    traceparent = traceparent_of(record.headers)
    trace = (("traceparent", traceparent.encode()),) if traceparent else ()
    return OutputRecord(
        topic=SAMPLES_ACCEPTED,
        key=f"{sample.tenant}/{sample.workload_id}".encode(),
        value=sample.to_json(),
        timestamp=record.timestamp,
        headers=(*binary_headers(attributes), *trace),
    )


def _event_record(record: Record, judged: SampleJudged, constitution: ConstitutionReference) -> OutputRecord:
    source = source_reference(record.topic, record.partition, record.offset)
    traceparent = traceparent_of(record.headers)
    event = JudgedEvent(
        id=event_id(source, SampleJudged.__name__, constitution.digest),
        source=source,
        type=event_type(SampleJudged),
        subject=judged.sample_id,
        time=time_of(record.timestamp),
        constitutionhash=constitution.hash,
        constitutiondigest=constitution.digest,
        traceparent=traceparent,
        data=judged,
    )
    return OutputRecord(
        topic=COMPLIANCE_EVENTS,
        key=judged.sample_id.encode(),
        value=event.to_json(),
        timestamp=record.timestamp,
        headers=structured_headers(traceparent),
    )
