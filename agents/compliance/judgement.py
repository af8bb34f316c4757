"""The whole judgement of one sample as pure functions: look, ask the policy, conclude."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctrainer.agents.compliance.detectors.detection import Detectors
from ctrainer.agents.compliance.policy import PolicyEngine, PolicyResult
from ctrainer.agents.compliance.redaction import Redacted, redact
from ctrainer.agents.compliance.shape import MAX_RECORD_BYTES, ShapedSample, shape
from ctrainer.agents.records import Record
from ctrainer.schemas.compliance import Finding, SampleJudged, Verdict
from ctrainer.schemas.constitution import Constitution, Mode
from ctrainer.schemas.identity import sample_id
from ctrainer.schemas.samples import AcceptedSample, SourceReference, digest_of_conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What is known about a sample before the policy is asked. `policy_input` holds no text."""

    record: Record
    sample: ShapedSample
    findings: tuple[Finding, ...]
    policy_input: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The decision, and the sample as it may be trained on unless it was rejected."""

    event: SampleJudged
    accepted: AcceptedSample | None


class Court:
    """A constitution made ready to judge samples by."""

    def __init__(self, constitution: Constitution, *, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        self.reference = constitution.reference()
        self.detectors = Detectors(constitution)
        self._max_record_bytes = max_record_bytes
        self._principles = {principle.id: principle for principle in constitution.principles}
        self._labels = {rule.id: rule.label for principle in constitution.principles for rule in principle.rules}

    def examine(self, record: Record) -> Examination:
        """Read a record and look at it.

        Raises:
            ContractError: the record is not a sample.
        """
        sample = shape(record.value, record.headers, max_bytes=self._max_record_bytes)
        findings = self.detectors.find(sample.messages, sample.tools)
        return Examination(
            record=record,
            sample=sample,
            findings=findings,
            policy_input=self._policy_input(sample, findings),
        )

    def conclude(self, examination: Examination, result: PolicyResult, engine: PolicyEngine) -> Judgement:
        """Carry out what the policy decided."""
        redacted = self._redact(examination, result)
        place = _place(examination.record)
        event = SampleJudged(
            **place,
            tenant=examination.sample.tenant,
            workload_id=examination.sample.workload_id,
            verdict=result.verdict,
            score=result.score,
            reasons=result.reasons,
            findings=self._in_mode(examination, Mode.ENFORCE),
            shadow_findings=self._in_mode(examination, Mode.SHADOW),
            redactions=redacted.redactions,
            repairs=examination.sample.repairs,
            decided_by=engine.name,
            policy_revision=engine.revision,
            detector_version=self.detectors.version,
        )
        rejected = result.verdict is Verdict.REJECT
        return Judgement(
            event=event, accepted=None if rejected else self._accepted(examination.sample, redacted, place)
        )

    def _policy_input(self, sample: ShapedSample, findings: tuple[Finding, ...]) -> dict[str, Any]:
        """Return what the policy may depend on: equal for samples that differ only in text and places."""
        distinct = sorted(
            {
                (found.principle, found.rule, found.score, sample.messages[found.message_index].role)
                for found in findings
            }
        )
        return {
            "constitution": self.reference.digest,
            "tenant": sample.tenant,
            "workload": sample.workload_id,
            "model": sample.model,
            "findings": [
                {"principle": principle, "rule": rule, "score": score, "role": role}
                for principle, rule, score, role in distinct
            ],
        }

    def _redact(self, examination: Examination, result: PolicyResult) -> Redacted:
        sample = examination.sample
        if result.verdict is not Verdict.REDACT:
            return Redacted(messages=sample.messages, tools=sample.tools, redactions=())
        to_redact = [found for found in examination.findings if self._breaches(found, result.redact)]
        return redact(sample.messages, sample.tools, to_redact, self._labels)

    def _breaches(self, finding: Finding, principles: tuple[str, ...]) -> bool:
        return finding.principle in principles and finding.score >= self._principles[finding.principle].threshold

    def _in_mode(self, examination: Examination, mode: Mode) -> tuple[Finding, ...]:
        return tuple(found for found in examination.findings if self._principles[found.principle].mode is mode)

    def _accepted(self, sample: ShapedSample, redacted: Redacted, place: Mapping[str, Any]) -> AcceptedSample:
        return AcceptedSample(
            **place,
            tenant=sample.tenant,
            workload_id=sample.workload_id,
            logged_at=sample.logged_at,
            conversation_id=sample.conversation_id,
            user_digest=sample.user_digest,
            messages=redacted.messages,
            tools=redacted.tools,
            redactions=redacted.redactions,
            repairs=sample.repairs,
            content_digest=digest_of_conversation(redacted.messages, redacted.tools),
            constitution=self.reference,
        )


def _place(record: Record) -> dict[str, Any]:
    source = SourceReference(topic=record.topic, partition=record.partition, offset=record.offset)
    return {"sample_id": sample_id(record.topic, record.partition, record.offset), "source": source}


def judge(record: Record, court: Court, engine: PolicyEngine) -> Judgement:
    """Judge one record: a pure function of its bytes, its headers and place, the constitution and the policy.

    Raises:
        ContractError: the record is not a sample.
        PolicyError: the policy gave no decision.
    """
    examination = court.examine(record)
    return court.conclude(examination, engine.evaluate([examination.policy_input])[0], engine)
