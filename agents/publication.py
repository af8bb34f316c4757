"""A judgement as records: the sample to where it goes on, and the decision as an event.

Written as JSON right away; the tests read everything back as the models of the contract.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson
from msgspec import Struct

from ctrainer.agents.compliance.judgement import (
    Court,
    Examination,
    Judgement,
    findings_json,
    judged_json,
    sample_json,
)
from ctrainer.agents.compliance.policy import Decision
from ctrainer.agents.records import Headers, OutputRecord, Record
from ctrainer.agents.tally import Tally
from ctrainer.schemas.compliance import SampleJudged, Verdict
from ctrainer.schemas.constitution import Mode
from ctrainer.schemas.envelope import (
    SCHEMA_VERSION,
    binary_headers,
    event_type,
    structured_headers,
    time_text,
    traceparent_of,
)
from ctrainer.schemas.identity import event_id, sample_id, source_reference
from ctrainer.schemas.message import Message
from ctrainer.schemas.preferences import PreferencePair
from ctrainer.schemas.samples import AcceptedSample, ParkedSample, SampleRevision, SlowLane
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, SAMPLES_ACCEPTED, SAMPLES_PREFERENCES, SAMPLES_SLOW_LANE

_WAITS_FOR = {Verdict.REVISE: SlowLane.REVISION, Verdict.REVIEW: SlowLane.REVIEW, Verdict.PARK: SlowLane.POLICY}
_SHARED_WITH_PAIR = (
    "sample_id",
    "source",
    "tenant",
    "workload_id",
    "logged_at",
    "conversation_id",
    "user_digest",
    "tools",
    "revision",
    "constitution",
)
_JUDGED = event_type(SampleJudged)
_STRUCTURED = structured_headers()
_TEXT_HOLE, _HOLE = orjson.Fragment(b'"\0"'), orjson.Fragment(b"\0")
"""Stand for what differs between equal decisions. JSON holds no zero byte anywhere else, whatever a producer sent."""
_NONE = b"[]"
_TEMPLATES = 4_096


class Origin(NamedTuple):
    """The flywheel record that a sample was, and how many decisions there were on it before this one."""

    topic: str
    partition: int
    offset: int
    attempt: int = 0


class Revised(NamedTuple):
    """Which sample was revised, and how."""

    origin: Origin
    revision: SampleRevision


class _Occasion(Struct, frozen=True):
    """What the sample and its decision say alike: which sample, and which record made us judge it.

    `key` is `sample_id` in bytes, and `time` that of the cause.
    """

    cause: Record
    attempt: int
    source: str
    sample_id: str
    key: bytes
    place: bytes
    time: bytes
    traceparent: str | None


class Publication:
    """Writes the outcome of a judgement: the same bytes whenever the same record is judged again."""

    def __init__(self, court: Court, tally: Tally) -> None:
        self._court = court
        self._tally = tally
        self._constitution = {"hash": court.reference.hash, "digest": court.reference.digest}
        self._headers: dict[type[Message], Headers] = {
            kind: self._constant_headers(kind) for kind in (AcceptedSample, ParkedSample, PreferencePair)
        }
        self._envelope = self._constant_envelope()
        self._templates: dict[tuple[object, ...], bytes] = {}

    def of(
        self, cause: Record, examination: Examination, decision: Decision, origin: Origin | None = None
    ) -> Iterator[OutputRecord]:
        """Yield the sample, unless it was rejected, and then the decision. `cause` is the record that was handled."""
        judgement = self._judgement(examination, decision)
        occasion = _occasion(cause, origin)
        if judgement.verdict is not Verdict.REJECT:
            yield self._sample(occasion, examination, judgement)
        yield self._event(occasion, examination, judgement)

    def revised(
        self, cause: Record, before: Judgement, examination: Examination, decision: Decision, revised: Revised
    ) -> Iterator[OutputRecord]:
        """Yield the revised sample, the pair of it and its original, and the decision.

        `before` is the judgement on the original; `examination` and `decision` are those of the revised sample.
        """
        judgement, occasion = self._judgement(examination, decision), _occasion(cause, revised.origin)
        body = {
            **self._body(occasion, examination, judgement),
            "revision": revised.revision.model_dump(mode="json"),
        }
        yield self._sample_record(occasion, body, topic=SAMPLES_ACCEPTED, kind=AcceptedSample)
        shared = {key: body[key] for key in _SHARED_WITH_PAIR}
        pair = {**shared, "chosen": judgement.redacted.messages, "rejected": before.redacted.messages}
        yield self._sample_record(occasion, pair, topic=SAMPLES_PREFERENCES, kind=PreferencePair)
        yield self._event(occasion, examination, judgement)

    def _judgement(self, examination: Examination, decision: Decision) -> Judgement:
        """Return the judgement, and count it."""
        judgement = self._court.conclude(examination, decision)
        self._tally.verdicts[str(judgement.verdict)] += 1
        for found in examination.findings:
            principle = found.source.principle
            self._tally.findings[principle.id, str(principle.mode)] += 1
        return judgement

    def _body(self, occasion: _Occasion, examination: Examination, judgement: Judgement) -> dict[str, Any]:
        """Return what messages that hold the sample say alike."""
        return {
            "sample_id": occasion.sample_id,
            "source": orjson.Fragment(occasion.place),
            **sample_json(examination.sample, judgement.redacted, self._constitution),
        }

    def _sample(self, occasion: _Occasion, examination: Examination, judgement: Judgement) -> OutputRecord:
        body = self._body(occasion, examination, judgement)
        waits_for = _WAITS_FOR.get(judgement.verdict)
        if waits_for is None:
            body["revision"] = None
            return self._sample_record(occasion, body, topic=SAMPLES_ACCEPTED, kind=AcceptedSample)
        waiting = {
            "waits_for": waits_for.value,
            "reasons": judgement.decision.result.reasons,
            "attempt": occasion.attempt + 1,
            "model": examination.sample.model,
            **body,
        }
        return self._sample_record(occasion, waiting, topic=SAMPLES_SLOW_LANE, kind=ParkedSample)

    def _sample_record(
        self, occasion: _Occasion, body: Mapping[str, Any], *, topic: str, kind: type[Message]
    ) -> OutputRecord:
        timestamp, traceparent = occasion.cause.timestamp, occasion.traceparent
        headers = (
            *self._headers[kind],
            ("ce_id", event_id(occasion.source, kind.__name__, self._constitution["digest"]).encode()),
            ("ce_source", occasion.source.encode()),
            ("ce_subject", occasion.key),
            ("ce_time", occasion.time.replace(b"Z", b"+00:00")),
            *((("traceparent", traceparent.encode()),) if traceparent else ()),
        )
        key = f"{body['tenant']}/{body['workload_id']}".encode()
        return OutputRecord(topic, key, orjson.dumps(body), timestamp, headers)

    def _event(self, occasion: _Occasion, examination: Examination, judgement: Judgement) -> OutputRecord:
        source, traceparent = occasion.source, occasion.traceparent
        findings, redactions = examination.findings, judgement.redacted.redactions
        event = self._template(occasion, examination, judgement) % (
            event_id(source, SampleJudged.__name__, self._constitution["digest"]).encode(),
            source.encode(),
            occasion.key,
            occasion.time,
            occasion.key,
            occasion.place,
            orjson.dumps(findings_json(findings, Mode.ENFORCE)) if findings else _NONE,
            orjson.dumps(findings_json(findings, Mode.SHADOW)) if findings else _NONE,
            orjson.dumps(redactions) if redactions else _NONE,
        )
        headers = structured_headers(traceparent) if traceparent else _STRUCTURED
        return OutputRecord(COMPLIANCE_EVENTS, occasion.key, event, occasion.cause.timestamp, headers)

    def _template(self, occasion: _Occasion, examination: Examination, judgement: Judgement) -> bytes:
        """Return the event without what differs between equal decisions. What is kept is told apart by all it says."""
        sample, decision = examination.sample, judgement.decision
        if sample.repairs or occasion.traceparent or occasion.attempt:
            return self._new_template(occasion, examination, judgement)
        result = decision.result
        key = (
            *(sample.tenant, sample.workload_id, judgement.verdict, result.score, result.reasons),
            *(decision.decided_by, decision.policy_revision, examination.guarded),
        )
        template = self._templates.get(key)
        if template is None:
            template = self._new_template(occasion, examination, judgement)
            if len(self._templates) >= _TEMPLATES:
                self._templates.clear()
            self._templates[key] = template
        return template

    def _new_template(self, occasion: _Occasion, examination: Examination, judgement: Judgement) -> bytes:
        version, attempt = self._court.detector_version, occasion.attempt
        event = {
            "specversion": "1.0",
            "id": _TEXT_HOLE,
            "source": _TEXT_HOLE,
            "type": _JUDGED,
            "subject": _TEXT_HOLE,
            "time": _TEXT_HOLE,
            **self._envelope,
            "traceparent": occasion.traceparent,
            "data": {
                "sample_id": _TEXT_HOLE,
                "source": _HOLE,
                **judged_json(examination, judgement, detector_version=version, attempt=attempt),
                "findings": _HOLE,
                "shadow_findings": _HOLE,
                "redactions": _HOLE,
            },
        }
        return orjson.dumps(event).replace(b"%", b"%%").replace(b"\0", b"%b")

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


def _occasion(cause: Record, origin: Origin | None) -> _Occasion:
    source = source_reference(cause.topic, cause.partition, cause.offset)
    topic, partition, offset, attempt = origin or (cause.topic, cause.partition, cause.offset, 0)
    sample = sample_id(topic, partition, offset)
    return _Occasion(
        cause,
        attempt,
        source,
        sample,
        sample.encode(),
        b'{"topic":"%b","partition":%d,"offset":%d}' % (topic.encode(), partition, offset),
        time_text(cause.timestamp).encode(),
        traceparent_of(cause.headers) if cause.headers else None,
    )
