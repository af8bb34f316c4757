"""A judgement as records: the sample to where it goes on, and the decision as an event.

Written as JSON right away; the tests read everything back as the models of the contract.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from ctrainer.agents.compliance.judgement import Court, Examination, Judgement, judged_json, sample_json
from ctrainer.agents.compliance.policy import Decision
from ctrainer.agents.records import Headers, OutputRecord, Record
from ctrainer.agents.tally import Tally
from ctrainer.schemas.compliance import SampleJudged, Verdict
from ctrainer.schemas.envelope import (
    SCHEMA_VERSION,
    binary_headers,
    event_type,
    structured_headers,
    time_of,
    traceparent_of,
)
from ctrainer.schemas.identity import event_id, sample_id, source_reference
from ctrainer.schemas.message import Message
from ctrainer.schemas.samples import AcceptedSample, ParkedSample, SlowLane
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, SAMPLES_ACCEPTED, SAMPLES_SLOW_LANE

_WAITS_FOR = {Verdict.REVISE: SlowLane.REVISION, Verdict.REVIEW: SlowLane.REVIEW, Verdict.PARK: SlowLane.POLICY}
_JUDGED = event_type(SampleJudged)
_STRUCTURED = structured_headers()


class Origin(NamedTuple):
    """The flywheel record that a sample was, and how many decisions there were on it before this one."""

    topic: str
    partition: int
    offset: int
    attempt: int = 0


class Publication:
    """Writes the outcome of a judgement: the same bytes whenever the same record is judged again."""

    def __init__(self, court: Court, tally: Tally) -> None:
        self._court = court
        self._tally = tally
        self._constitution = {"hash": court.reference.hash, "digest": court.reference.digest}
        self._headers: dict[type[Message], Headers] = {
            kind: self._constant_headers(kind) for kind in (AcceptedSample, ParkedSample)
        }
        self._envelope = self._constant_envelope()

    def of(
        self, cause: Record, examination: Examination, decision: Decision, origin: Origin | None = None
    ) -> Iterator[OutputRecord]:
        """Yield the sample, unless it was rejected, and then the decision. `cause` is the record that was handled."""
        origin = origin or Origin(cause.topic, cause.partition, cause.offset)
        judgement = self._court.conclude(examination, decision)
        self._tally.verdicts[judgement.verdict.value] += 1
        if examination.findings:
            self._tally.findings.update(
                (found.source.principle.id, found.source.principle.mode.value) for found in examination.findings
            )
        place = {
            "sample_id": sample_id(origin.topic, origin.partition, origin.offset),
            "source": {"topic": origin.topic, "partition": origin.partition, "offset": origin.offset},
        }
        if judgement.verdict is not Verdict.REJECT:
            yield self._sample(cause, examination, judgement, place, origin.attempt)
        yield self._event(cause, examination, judgement, place, origin.attempt)

    def _sample(
        self, cause: Record, examination: Examination, judgement: Judgement, place: Mapping[str, Any], attempt: int
    ) -> OutputRecord:
        sample = examination.sample
        body = {**place, **sample_json(sample, judgement.redacted, self._constitution)}
        waits_for = _WAITS_FOR.get(judgement.verdict)
        if waits_for is None:
            return self._sample_record(cause, body, topic=SAMPLES_ACCEPTED, kind=AcceptedSample)
        waiting = {
            "waits_for": waits_for.value,
            "reasons": judgement.decision.result.reasons,
            "attempt": attempt + 1,
            "model": sample.model,
            **body,
        }
        return self._sample_record(cause, waiting, topic=SAMPLES_SLOW_LANE, kind=ParkedSample)

    def _sample_record(
        self, cause: Record, body: Mapping[str, Any], *, topic: str, kind: type[Message]
    ) -> OutputRecord:
        source = source_reference(cause.topic, cause.partition, cause.offset)
        traceparent = traceparent_of(cause.headers) if cause.headers else None
        headers = (
            *self._headers[kind],
            ("ce_id", event_id(source, kind.__name__, self._constitution["digest"]).encode()),
            ("ce_source", source.encode()),
            ("ce_subject", body["sample_id"].encode()),
            ("ce_time", time_of(cause.timestamp).isoformat().encode()),
            *((("traceparent", traceparent.encode()),) if traceparent else ()),
        )
        key = f"{body['tenant']}/{body['workload_id']}".encode()
        return OutputRecord(topic, key, orjson.dumps(body), cause.timestamp, headers)

    def _event(
        self, cause: Record, examination: Examination, judgement: Judgement, place: Mapping[str, Any], attempt: int
    ) -> OutputRecord:
        source = source_reference(cause.topic, cause.partition, cause.offset)
        traceparent = traceparent_of(cause.headers) if cause.headers else None
        version = self._court.detector_version
        event = {
            "specversion": "1.0",
            "id": event_id(source, SampleJudged.__name__, self._constitution["digest"]),
            "source": source,
            "type": _JUDGED,
            "subject": place["sample_id"],
            "time": time_of(cause.timestamp),
            **self._envelope,
            "traceparent": traceparent,
            "data": {**place, **judged_json(examination, judgement, detector_version=version, attempt=attempt)},
        }
        return OutputRecord(
            COMPLIANCE_EVENTS,
            place["sample_id"].encode(),
            orjson.dumps(event, option=orjson.OPT_UTC_Z),
            cause.timestamp,
            structured_headers(traceparent) if traceparent else _STRUCTURED,
        )

    def _constant_envelope(self) -> dict[str, str]:
        return {
            "datacontenttype": "application/json",
            "schemaversion": SCHEMA_VERSION,
            "constitutionhash": self._constitution["hash"],
            "constitutiondigest": self._constitution["digest"],
        }

    def _constant_headers(self, kind: type[Message]) -> Headers:
        hash_, digest = self._constitution["hash"], self._constitution["digest"]
        return binary_headers({"type": event_type(kind), "constitutionhash": hash_, "constitutiondigest": digest})
