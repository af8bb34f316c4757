"""The whole judgement of one sample as pure functions: look, ask the policy, conclude."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from orjson import Fragment

from ctrainer.agents.compliance.conversation import Turn
from ctrainer.agents.compliance.detectors.detection import Detectors, HarmScorer
from ctrainer.agents.compliance.detectors.findings import Found
from ctrainer.agents.compliance.detectors.names import HARM_SCORE
from ctrainer.agents.compliance.guard import Guard, Seen
from ctrainer.agents.compliance.harm import HarmModel
from ctrainer.agents.compliance.language import covered
from ctrainer.agents.compliance.policy import Decision, PolicyEngine, doubted, parked
from ctrainer.agents.compliance.redaction import Redacted, redact
from ctrainer.agents.compliance.shape import ShapedSample
from ctrainer.agents.compliance.verdicts import Case, VerdictCache, Verdicts
from ctrainer.schemas.compliance import Guarded, Verdict
from ctrainer.schemas.constitution import Action, Constitution, Mode
from ctrainer.schemas.identity import canonical_bytes, content_digest

Json = dict[str, Any]


class Examination(Struct, frozen=True):
    """What is known about a sample before the policy is asked. `guarded` is None where there is no guard model."""

    sample: ShapedSample
    findings: Sequence[Found]
    case: Case
    guarded: Guarded | None = None

    def breached(self, action: Action) -> tuple[str, ...]:
        """Return the ids of the enforced principles with an action that the sample breaches, in order."""
        return tuple(sorted({found.source.principle.id for found in self.findings if found.asks_for(action)}))


class Judgement(Struct, frozen=True):
    """The decision and the conversation as it may go on: redacted as decided, and as it came where it is rejected."""

    verdict: Verdict
    decision: Decision
    redacted: Redacted


class Court:
    """A constitution made ready to judge samples by. `detector_version` names all that looks at a text."""

    def __init__(
        self, constitution: Constitution, *, harm: HarmScorer | None = None, guard: Guard | None = None
    ) -> None:
        self.reference = constitution.reference()
        self.detectors = Detectors(constitution, harm=harm or _harm_model(constitution), covered=covered)
        self.guard = guard
        self.detector_version = "+".join([self.detectors.version, *([guard.version] if guard else [])])

    def verdicts(
        self, engine: PolicyEngine, *, cache: VerdictCache | None = None, answers: Counter[str] | None = None
    ) -> Verdicts:
        """Return the decisions of an engine on what this court examines."""
        return Verdicts(
            engine,
            constitution_digest=self.reference.digest,
            detector_version=self.detector_version,
            cache=cache,
            answers=answers,
        )

    def examine(self, sample: ShapedSample) -> Examination:
        """Look at one sample."""
        return self.examine_all([sample])[0]

    def examine_all(self, samples: Sequence[ShapedSample]) -> list[Examination]:
        """Look at samples. What is seen in one does not depend on the others; many at once cost less."""
        found = self.detectors.find_all([(sample.messages, sample.tools) for sample in samples])
        return [_examination(sample, findings) for sample, findings in zip(samples, found, strict=True)]

    async def hear(self, examinations: Sequence[Examination]) -> Sequence[Examination]:
        """Return each examination with what a guard model makes of it, where there is one."""
        return await _heard(self.guard, examinations) if self.guard else examinations

    async def decide(
        self, verdicts: Verdicts, examinations: Sequence[Examination]
    ) -> list[tuple[Examination, Decision]]:
        """Return each examination, with what a guard model makes of it, and the decision on it.

        What no policy layer could be asked about, or the guard model, has a decision that parks it.

        Raises:
            PolicyError: an examination has no decision.
        """
        heard = await self.hear(examinations)
        decisions = await verdicts.of([one.case for one in heard])
        made = [(one, decisions.get(one.case, verdicts.outage)) for one in heard]
        if self.guard is None:
            return made
        return [(one, _weighed(one, decision, unsafe_without=self.guard.unsafe_without)) for one, decision in made]

    def conclude(self, examination: Examination, decision: Decision) -> Judgement:
        """Carry out what the policy decided: whatever goes on, also to revision or review, is redacted first."""
        result, sample = decision.result, examination.sample
        if not result.redact or result.verdict is Verdict.REJECT:
            return Judgement(result.verdict, decision, Redacted(sample.messages, sample.tools, sample.redactions))
        to_redact = [found for found in examination.findings if found.breaches and _is_of(found, result.redact)]
        redacted = redact(sample.messages, sample.tools, to_redact)
        if sample.redactions:
            redacted = replace(redacted, redactions=[*sample.redactions, *redacted.redactions])
        return Judgement(result.verdict, decision, redacted)


def judged_json(examination: Examination, judgement: Judgement, *, detector_version: str, attempt: int = 0) -> Json:
    """Return the decision in the shape of `SampleJudged`, from its tenant on."""
    sample, decision = examination.sample, judgement.decision
    return {
        "tenant": sample.tenant,
        "workload_id": sample.workload_id,
        "verdict": judgement.verdict.value,
        "score": decision.result.score,
        "reasons": decision.result.reasons,
        "findings": findings_json(examination.findings, Mode.ENFORCE),
        "shadow_findings": findings_json(examination.findings, Mode.SHADOW),
        "redactions": judgement.redacted.redactions,
        "repairs": sample.repairs,
        "attempt": attempt,
        "decided_by": decision.decided_by,
        "policy_revision": decision.policy_revision,
        "detector_version": detector_version,
        "guard": examination.guarded,
    }


def findings_json(findings: Sequence[Found], mode: Mode) -> list[Json]:
    """Return the findings of principles in a mode, in the shape of `Finding`."""
    return [found.to_json() for found in findings if found.source.principle.mode is mode]


def sample_json(sample: ShapedSample, redacted: Redacted, constitution: Mapping[str, str]) -> Json:
    """Return the sample in the shape of `AcceptedSample`, from its tenant on.

    The conversation is written once, in canonical form, for the record and for its digest.
    """
    messages, tools = canonical_bytes(redacted.messages), canonical_bytes(redacted.tools)
    return {
        "tenant": sample.tenant,
        "workload_id": sample.workload_id,
        "logged_at": sample.logged_at,
        "conversation_id": sample.conversation_id,
        "user_digest": sample.user_digest,
        "messages": Fragment(messages),
        "tools": Fragment(tools),
        "redactions": redacted.redactions,
        "repairs": sample.repairs,
        "content_digest": content_digest(b'{"messages":%b,"tools":%b}' % (messages, tools)),
        "constitution": constitution,
    }


def _examination(sample: ShapedSample, findings: Sequence[Found], guarded: Guarded | None = None) -> Examination:
    distinct = _distinct(findings, sample.messages) if findings else ()
    return Examination(sample, findings, Case(sample.tenant, sample.workload_id, sample.model, distinct), guarded)


async def _heard(guard: Guard, examinations: Sequence[Examination]) -> list[Examination]:
    heard = await guard.hear([Seen(one.sample.messages, one.findings) for one in examinations])
    return [
        _examination(one.sample, told.findings, told.guarded) for one, told in zip(examinations, heard, strict=True)
    ]


def _weighed(examination: Examination, decision: Decision, *, unsafe_without: bool) -> Decision:
    """Return the decision on a sample, which does not pass where a guard model says nothing clear of it."""
    if examination.guarded is Guarded.UNAVAILABLE and not unsafe_without:
        return parked(decision, "guard-unavailable")
    return doubted(decision, "guard-unclear") if examination.guarded is Guarded.UNCLEAR else decision


def _distinct(findings: Sequence[Found], messages: Sequence[Turn]) -> tuple[tuple[str, str, float, str], ...]:
    told = {
        (found.source.principle.id, found.source.rule.id, found.score, messages[found.message_index]["role"])
        for found in findings
    }
    return tuple(sorted(told))


def _harm_model(constitution: Constitution) -> HarmModel:
    """Return the packaged model, silent below the lowest threshold that it is asked about."""
    scored = (
        principle.threshold
        for principle in constitution.principles
        if any(rule.detector == HARM_SCORE for rule in principle.rules)
    )
    floor = min(scored, default=1.0)
    return HarmModel.packaged().above(floor) if floor < 1.0 else HarmModel.packaged()


def _is_of(found: Found, principles: Sequence[str]) -> bool:
    return found.source.principle.id in principles
