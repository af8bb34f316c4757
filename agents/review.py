"""The review stage: a person's verdict on a sample ends its wait, and a person's word the halt of a model."""

from collections.abc import AsyncIterator, Callable, Sequence

import orjson

from ctrainer.agents.commands import CommandDesk, Refusal
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.policy import Decision, PolicyResult
from ctrainer.agents.compliance.redaction import redact
from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.events import event_record
from ctrainer.agents.force import JudgesInForce
from ctrainer.agents.parked import origin, parked, shaped
from ctrainer.agents.provisional import Provisional
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.revision_halts import Halted, halts
from ctrainer.agents.trial import spoken
from ctrainer.agents.world import Topics
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.constitution import Action
from ctrainer.schemas.datasets import OffsetRange
from ctrainer.schemas.envelope import header, require_known_version
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.message import short
from ctrainer.schemas.review import ReviewDecision, ReviewVerdict
from ctrainer.schemas.revision import ResumeRevision, RevisionResumed
from ctrainer.schemas.samples import ParkedSample, SlowLane
from ctrainer.schemas.signature import ANY_TENANT
from ctrainer.schemas.topics import CONSTITUTION_EVENTS, DEAD_LETTERS, REVIEW_DECISIONS, SAMPLES_SLOW_LANE

STAGE = "review"
PERSON = "person"
Home = Callable[[bytes], int]
"""Says in which partition all records of a key lie."""
_VERDICTS = {ReviewVerdict.ACCEPT: Verdict.ACCEPT, ReviewVerdict.REJECT: Verdict.REJECT}


async def decided_samples(topics: Topics, partition: int | None = None) -> AsyncIterator[tuple[int, str]]:
    """Yield offset and sample id of each decision that was not refused: a refused one is a dead letter.

    Who may decide changes with the keyring; what was decided does not.
    """
    refused = {
        (header(letter.headers, "dlq.src.partition"), header(letter.headers, "dlq.src.offset"))
        async for letter in topics.read_topic(DEAD_LETTERS)
        if header(letter.headers, "dlq.src.topic") == REVIEW_DECISIONS
    }
    async for record in topics.read_topic(REVIEW_DECISIONS, partition):
        if (str(record.partition), str(record.offset)) not in refused:
            yield record.offset, (record.key or b"").decode("utf-8", "replace")


class Review:
    """The handler of `review.decisions`. All decisions on a sample lie in one partition: the first one counts."""

    def __init__(self, *, desk: CommandDesk, topics: Topics, judges: JudgesInForce, home: Home) -> None:
        self._desk = desk
        self._home = home
        self._topics = topics
        self._judges = judges
        self._decided: dict[int, Provisional[frozenset[str]]] = {}

    async def restore(self, partition: int, committed_offset: int) -> None:
        """Find the samples again that were decided before, by what became of the decisions then."""
        known = decided_samples(self._topics, partition)
        decided = {sample async for offset, sample in known if offset < committed_offset}
        self._decided[partition] = Provisional(frozenset(decided))

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Return the outcome of each valid decision and word; any other record is a dead letter with its reason."""
        state = self._decided[batch.partition]
        decided = set(state.before(batch.records[0].offset))
        outputs: list[OutputRecord] = []
        for record in batch.records:
            try:
                outputs += await self._outcome(record, decided)
            except ContractError as error:
                outputs.append(dead_letter(record, stage=STAGE, reason=error.reason, message=str(error)))
        state.propose(frozenset(decided), next_offset=batch.records[-1].offset + 1)
        return outputs

    async def _outcome(self, record: Record, decided: set[str]) -> list[OutputRecord]:
        """Return what becomes of a record; a decision adds its sample to those `decided`.

        Raises:
            ContractError: it is neither a decision nor a word that counts.
        """
        require_known_version(record.headers)
        # Elsewhere nobody knows what was decided before, and a signature does not say where its record belongs.
        if record.key is not None and self._home(record.key) != record.partition:
            raise ContractError("foreign-partition", "record: expected in the partition of its key")
        if _lifts_halt(record):
            return [await self._resumed(record)]
        decision, sample = await self._valid(record, decided)
        outputs = await self._concluded(record, decision, sample)
        decided.add(decision.sample_id)
        return outputs

    async def _resumed(self, record: Record) -> OutputRecord:
        """Return the event that lifts a halt.

        Raises:
            ContractError: it comes from nobody who may act for every tenant, or nothing is halted there.
        """
        said = ResumeRevision.from_json(short(record.value))
        self._require_signer(record, ANY_TENANT)
        _raise_if(self._desk.constitution_objection(said.constitution))
        key = f"{said.topic}/{said.partition}"
        if record.key != key.encode():
            raise ContractError("key-is-not-partition", f"record key: expected {key!r}")
        halted = (await halts(self._topics)).get(Halted(said.partition, said.model))
        # Who copies the word must not lift a later halt with it.
        if halted is None or (said.topic, said.offset) != (SAMPLES_SLOW_LANE, halted.offset):
            raise ContractError("not-halted", "partition, offset, model: no such halt is in force")
        court = self._judges().court
        data = RevisionResumed(
            **said.model_dump(exclude={"kind", "offset", "reason"}),
            reason=_redacted(said.reason, court),
            resumed_by=self._desk.signer(record),
        )
        return event_record(topic=CONSTITUTION_EVENTS, key=key, data=data, cause=record, constitution=court.reference)

    def _require_signer(self, record: Record, tenant: str) -> None:
        _raise_if(self._desk.signature_objection(record, tenant))

    async def _valid(self, record: Record, decided: set[str]) -> tuple[ReviewDecision, ParkedSample]:
        """Return a decision with its sample.

        Raises:
            ContractError: it is none, comes from nobody who may decide, or is about no sample in review.
        """
        decision = ReviewDecision.from_json(short(record.value))
        self._require_signer(record, decision.tenant)
        _raise_if(self._desk.constitution_objection(decision.constitution))
        if record.key != decision.sample_id.encode():
            raise ContractError("key-is-not-sample", "record key: expected the sample id")
        if decision.sample_id in decided:
            raise ContractError("already-decided", "an earlier decision on this sample counts")
        return decision, await self._in_review(decision)

    async def _in_review(self, decision: ReviewDecision) -> ParkedSample:
        place = decision.parked
        ends = await self._topics.end_offsets(SAMPLES_SLOW_LANE)
        if place.offset >= ends.get(place.partition, 0):
            # Whoever reads there waits for a record that may never come.
            raise ContractError("not-in-review", "parked: there is no such record")
        span = OffsetRange(topic=SAMPLES_SLOW_LANE, partition=place.partition, start=place.offset, end=place.offset + 1)
        async for record in self._topics.read_ranges([span]):
            sample = parked(record, SlowLane.REVIEW)
            if sample is not None and (sample.sample_id, sample.tenant) == (decision.sample_id, decision.tenant):
                return sample
        raise ContractError("not-in-review", "parked: no sample of this id and tenant waits for review there")

    async def _concluded(self, record: Record, said: ReviewDecision, sample: ParkedSample) -> list[OutputRecord]:
        """Return the outputs of a decision. What goes on is redacted as the constitution in force asks.

        Raises:
            ContractError: a person accepts what the constitution in force rejects; it was another one when they read.
        """
        court, _, publication = self._judges()
        (examination,) = await court.hear([court.examine(shaped(sample))])
        verdict, redact = _VERDICTS[said.verdict], examination.breached(Action.REDACT)
        if verdict is Verdict.ACCEPT and (rejecting := examination.breached(Action.REJECT)):
            raise ContractError("rejected-by-constitution", f"{', '.join(rejecting)}: no person overrules a rejection")
        result = PolicyResult(
            verdict=Verdict.REDACT if verdict is Verdict.ACCEPT and redact else verdict,
            score=float(verdict is Verdict.ACCEPT),
            reasons=(f"reviewer:{self._desk.signer(record)}",),
            redact=redact if verdict is Verdict.ACCEPT else (),
        )
        decision = Decision(result=result, decided_by=PERSON, policy_revision=said.constitution.digest)
        return list(publication.of(record, examination, decision, origin(sample)))


def _redacted(note: str, court: Court) -> str:
    """Return what a person wrote as it may stand in an event, which is kept for ever."""
    examination = court.examine(spoken(note, "user"))
    to_redact = [found for found in examination.findings if found.asks_for(Action.REDACT)]
    return redact(examination.sample.messages, [], to_redact).messages[0]["content"]


def _raise_if(refusal: Refusal | None) -> None:
    if refusal is not None:
        raise ContractError(refusal.reason, refusal.message)


def _lifts_halt(record: Record) -> bool:
    """Return whether a record wants to be word that a halted model may go on; no header is needed for that."""
    try:
        value = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and value.get("kind") == ResumeRevision.__name__
