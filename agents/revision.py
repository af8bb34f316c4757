"""The revision stage: answers that breach a principle are rewritten until they pass all checks, or a person reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from ctrainer.agents.compliance.judgement import Examination
from ctrainer.agents.compliance.policy import Decision, PolicyResult
from ctrainer.agents.compliance.shape import ShapedSample
from ctrainer.agents.events import event_record
from ctrainer.agents.force import Judges, JudgesInForce
from ctrainer.agents.mending import Mendable, mendable, reworded, stays_a_breach
from ctrainer.agents.parked import all_parked, origin, shaped
from ctrainer.agents.provisional import Provisional
from ctrainer.agents.publication import Revised
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.revision_halts import Halted, halts
from ctrainer.agents.revision_tally import RevisionTally
from ctrainer.agents.trial import spoken
from ctrainer.agents.unanswered import Judged, PolicyOutageError, decided_alone, others_are_answered
from ctrainer.agents.world import Topics
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.revision import CollapseMeasure, RevisionHalted
from ctrainer.schemas.samples import ParkedSample, SampleRevision, SlowLane
from ctrainer.schemas.topics import CONSTITUTION_EVENTS
from ctrainer.trainer.collapse import CollapseBounds, Lately
from ctrainer.trainer.meaning import Fault
from ctrainer.trainer.revision import Outcome, Reviser, revise

STAGE = "revision"
MOST_LOSSES = 3
"""A sample over which the model died so often goes to a person."""
MOST_ANSWERS = 16
"""A conversation with more answers to mend is a person's work: it would keep the model from all others for long."""
NEVER_ANSWERED = "never-answered"
"""What is wrong with a revised sample about which policy or guard model do not answer, though they do about others."""


class ReviserUnavailableError(ConnectionError):
    """No model can be asked to rewrite: the stage waits where it is, and nothing is lost."""


class ReviserLostError(ReviserUnavailableError):
    """The model was lost over what it was asked."""


class RevisionHaltedError(ConnectionError):
    """The model has collapsed: the stage waits until a person lifts the halt, or another model is named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hearing:
    """A sample that breaches principles which ask for revision, and those who judge it."""

    record: Record
    sample: ParkedSample
    judges: Judges
    examination: Examination
    decision: Decision

    async def is_clean(self, texts: Mapping[int, str]) -> list[bool]:
        """Return for each turn with other content whether it breaches nothing that cannot be redacted.

        It is judged once more as if a user had said it: that assistants seldom do harm is presumed of none that did.
        """
        alone = [spoken(text, "user") for text in texts.values()]
        whole, *seen = self.judges.court.examine_all([reworded(self.examination.sample, texts), *alone])
        breached = {one.message_index for one in whole.findings if stays_a_breach(one)}
        return [
            turn not in breached and not any(map(stays_a_breach, one.findings))
            for turn, one in zip(texts, seen, strict=True)
        ]

    def to_person(self, faults: Sequence[str]) -> list[OutputRecord]:
        """Return the outputs that leave the sample to a person."""
        reasons = (*self.decision.result.reasons, *(f"{STAGE}:{fault}" for fault in faults))
        result: PolicyResult = self.decision.result.model_copy(update={"verdict": Verdict.REVIEW, "reasons": reasons})
        decision = Decision(result=result, decided_by=STAGE, policy_revision=self.decision.policy_revision)
        return list(self.judges.publication.of(self.record, self.examination, decision, origin(self.sample)))

    async def whole(self, texts: Mapping[int, str]) -> Judged:
        """Return the decision on the sample with other texts; one that parks where nobody answers about it alone.

        Raises:
            PolicyOutageError: there is no policy to ask.
        """
        return await decided_alone(self.judges, reworded(self.examination.sample, texts))

    def accepted(
        self, judged: Judged, texts: Mapping[int, str], *, rounds: int, model: str | None
    ) -> list[OutputRecord]:
        """Return the outputs for the sample with other texts, which was judged as a whole and accepted."""
        court, _, publication = self.judges
        after, final = judged
        principles = self.decision.result.reasons
        revision = SampleRevision(
            principles=principles,
            turns=tuple(texts),
            rounds=rounds,
            model=model,
            original_digest=self.sample.content_digest,
        )
        result = final.result.model_copy(update={"verdict": Verdict.REVISED, "reasons": principles})
        decision = Decision(result=result, decided_by=STAGE, policy_revision=final.policy_revision)
        before = court.conclude(self.examination, self.decision)
        return list(publication.revised(self.record, before, after, decision, Revised(origin(self.sample), revision)))


class _Losses:
    """How often the model was lost over the record at which each partition stands."""

    def __init__(self) -> None:
        self._by_partition: dict[int, tuple[int, int]] = {}

    def another(self, record: Record) -> None:
        self._by_partition[record.partition] = record.offset, self.of(record) + 1

    def of(self, record: Record) -> int:
        offset, times = self._by_partition.get(record.partition, (record.offset, 0))
        return times if offset == record.offset else 0


class Revision:
    """The handler of `samples.slow-lane` for samples that wait for revision; the others are other stages' work.

    With a deterministic model a pure function of the record, the constitution and the policy.
    """

    def __init__(
        self,
        *,
        judges: JudgesInForce,
        reviser: Reviser,
        topics: Topics,
        tally: RevisionTally | None = None,
        collapse: CollapseBounds | None = None,
    ) -> None:
        self._judges = judges
        self._reviser = reviser
        self._topics = topics
        self._tally = tally or RevisionTally()
        self._collapse = collapse or CollapseBounds()
        self._lately: dict[int, Provisional[Lately]] = {}
        self._losses = _Losses()
        self._halts: dict[int, RevisionHalted] = {}

    async def restore(self, partition: int, _: int) -> None:
        """Find out whether a partition is halted, by whatever worker; called again and again while it is.

        Where a person has lifted the halt, what was seen of the model before counts no more.
        """
        before, now = self._halts.pop(partition, None), await self._halt_of(partition)
        self._tally.halted.pop(partition, None)
        if now is not None:
            self._halts[partition] = self._tally.halted[partition] = now
        elif before is not None:
            self._lately.pop(partition, None)

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return the outcome for each sample that waits for revision, in order.

        Raises:
            ReviserUnavailableError: there is no model to ask.
            PolicyOutageError: there is no policy to ask.
            RevisionHaltedError: the model has collapsed.
        """
        state = self._lately.setdefault(batch.partition, Provisional(Lately()))
        lately = state.before(batch.records[0].offset)
        waiting, outputs = all_parked(batch.records, SlowLane.REVISION, stage=STAGE)
        if waiting and (batch.partition in self._halts or self._collapsed(lately) is not None):
            raise RevisionHaltedError(f"revision of partition {batch.partition} is halted: the model has collapsed")
        for record, sample in waiting:
            handled, seen = await self._handle(record, sample)
            # What comes after a collapse in the same batch is still finished: a batch is committed as a whole.
            halts = self._collapsed(lately) is None
            lately = lately.after(drafts=seen.drafts, accepted=seen.accepted)
            outputs += handled
            if halts and (measure := self._collapsed(lately)) is not None:
                outputs.append(self._halted(record, lately, measure))
        self._tally.lately[batch.partition] = lately
        state.propose(lately, next_offset=batch.records[-1].offset + 1)
        return outputs

    async def _handle(self, record: Record, sample: ParkedSample) -> tuple[list[OutputRecord], Lately]:
        """Return the outcome of one sample, and what was seen of the model meanwhile."""
        judges = self._judges()
        examination, decision = await decided_alone(judges, shaped(sample))
        if decision.result.verdict is Verdict.REVISE and decision.result.redact:
            # Another constitution is in force by now. Redacted before and after apart, both would differ in more.
            examination, decision = await decided_alone(judges, _redacted(judges, examination, decision))
        if decision.result.verdict is not Verdict.REVISE:
            # Another constitution is in force by now: its word holds. About what nobody answers is asked elsewhere.
            return list(judges.publication.of(record, examination, decision, origin(sample))), Lately()
        hearing = _Hearing(record=record, sample=sample, judges=judges, examination=examination, decision=decision)
        work = mendable(examination) or []
        if (hindrance := self._hindrance(record, work)) is not None:
            self._tally.samples["review"] += 1
            return hearing.to_person([hindrance]), Lately()
        if not await others_are_answered(judges):
            raise PolicyOutageError("nobody could judge what is rewritten: waiting")
        outcomes = await self._outcomes(hearing, work)
        if self._judges() is not judges:
            # Another constitution came into force while the model was at work: its word holds.
            return await self._handle(record, sample)
        outputs = await self._concluded(hearing, work, outcomes)
        return outputs, _seen(work, outcomes)

    def _hindrance(self, record: Record, work: Sequence[Mendable]) -> str | None:
        """Return why no model is asked about a sample, or None."""
        if not work:
            return "not-in-an-answer"
        if len(work) > MOST_ANSWERS:
            return "too-many-answers"
        return "model-lost" if self._losses.of(record) >= MOST_LOSSES else None

    async def _outcomes(self, hearing: _Hearing, work: Sequence[Mendable]) -> list[Outcome]:
        async def is_clean(texts: Sequence[tuple[int, str]]) -> list[bool]:
            return await hearing.is_clean({work[number].turn: text for number, text in texts})

        try:
            outcomes = await revise([one.passage for one in work], reviser=self._reviser, is_clean=is_clean)
        except ReviserLostError:
            self._losses.another(hearing.record)
            raise
        for outcome in outcomes:
            self._tally.note(outcome)
        return outcomes

    async def _concluded(
        self, hearing: _Hearing, work: Sequence[Mendable], outcomes: Sequence[Outcome]
    ) -> list[OutputRecord]:
        """Return the outputs for a sample after the rounds: all its answers were mended, or a person reads it."""
        faults = {fault.value for outcome in outcomes if outcome.revised is None for fault in outcome.faults}
        if not faults:
            texts = {one.turn: outcome.revised or "" for one, outcome in zip(work, outcomes, strict=True)}
            by_model = any(outcome.by_model for outcome in outcomes)
            judged = await hearing.whole(texts)
            if judged[1].result.verdict in {Verdict.ACCEPT, Verdict.REDACT}:
                self._tally.samples["revised"] += 1
                rounds = max(outcome.rounds for outcome in outcomes)
                model = self._reviser.name if by_model else None
                return hearing.accepted(judged, texts, rounds=rounds, model=model)
            faults = {NEVER_ANSWERED if judged[1].result.verdict is Verdict.PARK else Fault.VIOLATION.value}
            self._tally.faults.update(faults)
        self._tally.samples["review"] += 1
        return hearing.to_person(sorted(faults))

    async def _halt_of(self, partition: int) -> RevisionHalted | None:
        return (await halts(self._topics)).get(Halted(partition, self._reviser.name))

    def _collapsed(self, lately: Lately) -> CollapseMeasure | None:
        if lately.refuses_too_much(self._collapse):
            return CollapseMeasure.REFUSALS
        return CollapseMeasure.DIVERSITY if lately.says_the_same(self._collapse) else None

    def _halted(self, record: Record, lately: Lately, measure: CollapseMeasure) -> OutputRecord:
        """Return the event that says that the model has collapsed over this record."""
        meters = lately.refusals() if measure is CollapseMeasure.REFUSALS else lately.diversity()
        reference = self._judges().court.reference
        data = RevisionHalted(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            model=self._reviser.name,
            measure=measure,
            before=meters.before,
            after=meters.after,
            constitution=reference,
        )
        self._tally.halted[record.partition] = data
        key = f"{record.topic}/{record.partition}"
        return event_record(topic=CONSTITUTION_EVENTS, key=key, data=data, cause=record, constitution=reference)


def _redacted(judges: Judges, examination: Examination, decision: Decision) -> ShapedSample:
    made = judges.court.conclude(examination, decision).redacted
    messages, tools = list(made.messages), list(made.tools)
    return replace(examination.sample, messages=messages, tools=tools, redactions=made.redactions)


def _seen(work: Sequence[Mendable], outcomes: Sequence[Outcome]) -> Lately:
    """Return what a model wrote last of each answer, and what was accepted of that.

    What was mended by leaving out sentences says nothing of a model, and whoever logged it chose what is left.
    """
    pairs = [(one.passage.answer, outcome) for one, outcome in zip(work, outcomes, strict=True)]
    both = [(answer, outcome) for answer, outcome in pairs if outcome.attempts and outcome.by_model]
    return Lately(
        drafts=tuple((answer, one.attempts[-1].text) for answer, one in both),
        accepted=tuple((answer, one.revised) for answer, one in both if one.revised is not None),
    )
