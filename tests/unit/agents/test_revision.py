import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.guard import Answer, Guard, GuardModel, Question
from ctrainer.agents.compliance.guard_memory import RememberingGuard
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import load_constitution
from ctrainer.agents.compliance.policy import Decision, PolicyInput, PolicyUnavailableError, RegorusEngine, bundle_of
from ctrainer.agents.force import Judges, JudgesInForce, appoint
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.review import Review
from ctrainer.agents.revision import (
    MOST_ANSWERS,
    MOST_LOSSES,
    ReviserLostError,
    ReviserUnavailableError,
    Revision,
    RevisionHaltedError,
)
from ctrainer.agents.revision_halts import halts
from ctrainer.agents.revision_tally import RevisionTally
from ctrainer.agents.screening import Screening
from ctrainer.agents.trial import spoken
from ctrainer.agents.unanswered import PolicyOutageError
from ctrainer.schemas.compliance import Guarded, SampleJudged
from ctrainer.schemas.envelope import Event, header
from ctrainer.schemas.preferences import PreferencePair
from ctrainer.schemas.revision import ResumeRevision, RevisionHalted, RevisionResumed
from ctrainer.schemas.samples import AcceptedSample, ParkedSample
from ctrainer.schemas.signature import Requester, sign
from ctrainer.trainer.collapse import LEAST
from ctrainer.trainer.revision import Draft, Rewriting
from tests.unit.agents.conftest import InMemoryTopics
from tests.unit.trainer.scripted_reviser import Scripted

DOCUMENT: dict[str, Any] = {
    "id": "manners",
    "version": "1",
    "governance_hash": "cdd01ef066bc6cf2",
    "languages": ["en"],
    "principles": [
        {
            "id": "civil",
            "statement": "Nobody is insulted.",
            "critique": "Say whom it insults.",
            "revision": "Make it civil.",
            "severity": "low",
            "action": "revise",
            "rules": [{"id": "fool", "label": "FOOL", "pattern": "fool"}],
        },
        {
            "id": "mail",
            "statement": "No addresses.",
            "severity": "low",
            "action": "redact",
            "rules": [{"id": "email", "label": "EMAIL", "pattern": r"[a-z]+@[a-z.]+[a-z]"}],
        },
        {
            "id": "bombs",
            "statement": "No bombs.",
            "severity": "high",
            "action": "reject",
            "rules": [{"id": "bomb", "label": "BOMB", "pattern": "bomb"}],
        },
    ],
}
LENIENT = DOCUMENT | {"principles": DOCUMENT["principles"][1:]}
RUDE = "Listen, you fool: the parcel for Anna comes to Rome on Monday. Write to anna@shop.example then."
CIVIL = "Listen, please: the parcel for Anna comes to Rome on Monday. Write to <EMAIL_1> then."
REFUSAL = "I'm sorry, but I can't help with that."
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
REQUESTERS = {
    name: Requester(key_id=name, public_key=KEY.public_key(), tenants=frozenset({tenant}))
    for name, tenant in (("root", "*"), ("rita", "shop"))
}
CALL_TO_BOB = {
    "id": "c1",
    "type": "function",
    "function": {"name": "track", "arguments": '{"to": "bob@shop.example"}'},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "track", "arguments": '{"parcel": 7}'}}


class Unreachable(Scripted):
    """A model that is lost, or away, so many times before it answers."""

    def __init__(self, *said: Sequence[str], error: type[Exception], times: int) -> None:
        super().__init__(*said)
        self.error, self.times = error, times

    async def rewrite(self, drafts: Sequence[Draft]) -> list[Rewriting]:
        if self.times > 0:
            self.times -= 1
            raise self.error
        return await super().rewrite(drafts)


class Away:
    """A policy engine that cannot be asked."""

    is_pure = True

    def __init__(self, engine: RegorusEngine) -> None:
        self.name, self.revision = engine.name, engine.revision

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        raise PolicyUnavailableError(f"{len(inputs)} questions")


class Flow:
    """Screening and revision over topics in memory."""

    def __init__(self, topics: InMemoryTopics) -> None:
        self.topics = topics
        self.tally = RevisionTally()
        self.enact(DOCUMENT)

    def enact(self, document: Mapping[str, Any], *, guard: GuardModel | None = None) -> None:
        constitution = load_constitution(json.dumps(document))
        self.engine = RegorusEngine(bundle_of(constitution))
        heard = Guard(guard, constitution, asks="always", is_asked=lambda _: True) if guard else None
        judges = appoint(Court(constitution, guard=heard), self.engine)
        self.judges: JudgesInForce = lambda: judges

    async def screen(
        self, answer: str = RUDE, question: str = "Where is it?", *, before: Sequence[Any] = (), **message: Any
    ) -> None:
        request: dict[str, Any] = {"messages": [*before, {"role": "user", "content": question}], "model": "m"}
        if message:
            request["tools"] = [{"type": "function", "function": {"name": "track", "parameters": {"type": "object"}}}]
        said = {"role": "assistant", "content": answer, **message}
        value = {
            "timestamp": 1,
            "client_id": "shop",
            "workload_id": "desk",
            "request": request,
            "response": {"choices": [{"message": said}]},
        }
        record = self.topics.append(OutputRecord("flywheel.samples", b"shop/desk", json.dumps(value).encode(), 1))
        self.deliver(await Screening(judges=self.judges)(of(record)))

    def stage(self, reviser: Scripted) -> Revision:
        return Revision(judges=self.judges, reviser=reviser, topics=self.topics, tally=self.tally)

    def deliver(self, outputs: Sequence[OutputRecord]) -> None:
        for output in outputs:
            self.topics.append(output)

    def waiting(self) -> list[Record]:
        return list(self.topics.records["samples.slow-lane", 0])

    async def revise(self, *said: Sequence[str]) -> Scripted:
        model = Scripted(*said)
        self.deliver(await self.stage(model)(of(*self.waiting())))
        return model

    async def resume(self, *, key_id: str, **said: Any) -> Sequence[OutputRecord]:
        fields = {
            "kind": "ResumeRevision",
            "topic": "samples.slow-lane",
            "partition": 0,
            "offset": max((halted.offset for halted in (await halts(self.topics)).values()), default=0),
            "model": "scripted",
            "reason": "mended",
            "constitution": self.judges().court.reference,
        }
        word = ResumeRevision.model_validate(fields | said)
        key, value = f"{word.topic}/{word.partition}".encode(), word.to_json()
        headers = (sign(KEY, key_id=key_id, key=key, value=value),)
        record = self.topics.append(OutputRecord("review.decisions", key, value, 1, headers))
        desk = CommandDesk(requesters=REQUESTERS, in_force=lambda: self.judges().court.reference)
        review = Review(desk=desk, topics=self.topics, judges=self.judges, home=lambda _key: 0)
        await review.restore(0, record.offset)
        return await review(of(record))

    def last(self) -> SampleJudged:
        records = self.topics.records["compliance.events", 0]
        return Event[SampleJudged].from_json(records[-1].value).data

    def accepted(self) -> list[AcceptedSample]:
        return [AcceptedSample.from_json(record.value) for record in self.topics.records["samples.accepted", 0]]

    def pairs(self) -> list[PreferencePair]:
        return [PreferencePair.from_json(record.value) for record in self.topics.records["samples.preferences", 0]]

    def parked(self) -> list[ParkedSample]:
        return [ParkedSample.from_json(record.value) for record in self.waiting()]


def of(*records: Record) -> RecordBatch:
    return RecordBatch(topic=records[0].topic, partition=records[0].partition, epoch=1, records=records)


@pytest.fixture
def flow(topics: InMemoryTopics) -> Flow:
    return Flow(topics)


async def test_a_revised_sample_is_accepted_with_where_it_comes_from_and_its_pair(flow: Flow) -> None:
    await flow.screen()
    (waiting,) = flow.parked()
    await flow.revise([CIVIL])
    (sample,), (pair,), decision = flow.accepted(), flow.pairs(), flow.last()
    assert sample.messages[1].content == CIVIL
    assert sample.revision is not None
    assert sample.revision.model_dump() == {
        "principles": ("civil",),
        "turns": (1,),
        "rounds": 2,
        "model": "scripted",
        "original_digest": waiting.content_digest,
    }
    assert sample.content_digest != waiting.content_digest
    assert (pair.chosen[1].content, pair.rejected[1].content) == (CIVIL, RUDE.replace("anna@shop.example", "<EMAIL_1>"))
    assert pair.chosen[0] == pair.rejected[0] == sample.messages[0]
    assert (decision.verdict, decision.attempt, decision.decided_by) == ("revised", 1, "revision")
    assert (decision.reasons, decision.findings) == (("civil",), ())
    assert {decision.sample_id, sample.sample_id, pair.sample_id} == {waiting.sample_id}
    assert decision.source.topic == "flywheel.samples"


async def test_a_pair_differs_in_the_rewritten_turns_alone_also_when_more_is_redacted_by_now(flow: Flow) -> None:
    civil, _, bombs = DOCUMENT["principles"]
    flow.enact(DOCUMENT | {"principles": [civil, bombs]})
    told = (
        "The parcel for Anna comes to Rome on Monday. You fool, ask zed@shop.example. Then write to bob@shop.example."
    )
    await flow.screen(told, question="Where is it?", tool_calls=[CALL_TO_BOB])
    assert "zed@shop.example" in flow.parked()[0].messages[1].content
    flow.enact(DOCUMENT)
    await flow.revise()
    (pair,), (sample,) = flow.pairs(), flow.accepted()
    assert "shop.example" not in pair.to_json().decode() + sample.to_json().decode()
    assert pair.chosen[1].content.endswith("Then write to <EMAIL_2>.")
    assert pair.rejected[1].content.endswith("You fool, ask <EMAIL_1>. Then write to <EMAIL_2>.")
    assert pair.chosen[1].tool_calls == pair.rejected[1].tool_calls
    assert [(redaction.message_index, redaction.count) for redaction in sample.redactions] == [(1, 3)]


async def test_a_sentence_that_a_rule_hits_is_left_out_without_a_model(flow: Flow) -> None:
    await flow.screen("You fool. The parcel for Anna comes to Rome on Monday.")
    await flow.revise()
    (sample,) = flow.accepted()
    assert sample.messages[1].content == "The parcel for Anna comes to Rome on Monday."
    assert sample.revision is not None
    assert sample.revision.model is None


async def test_nothing_is_left_out_of_an_answer_that_does_grave_harm(flow: Flow) -> None:
    civil, *others = DOCUMENT["principles"]
    flow.enact(DOCUMENT | {"principles": [{**civil, "severity": "high"}, *others]})
    await flow.screen("You fool. The parcel for Anna comes to Rome on Monday.")
    model = await flow.revise(["You there. The parcel for Anna comes to Rome on Monday."])
    assert len(model.asked) == 1
    (sample,) = flow.accepted()
    assert sample.messages[1].content == "You there. The parcel for Anna comes to Rome on Monday."


async def test_a_mended_answer_is_judged_without_the_benefit_of_the_doubt_that_assistants_have(flow: Flow) -> None:
    _, *others = DOCUMENT["principles"]
    scored = {
        "id": "weapons",
        "statement": "No help with weapons.",
        "critique": "Say what it helps with.",
        "revision": "Leave it out.",
        "severity": "medium",
        "hazard": "S9",
        "action": "revise",
        "threshold": 0.54,
        "rules": [
            {"id": "harm", "label": "HARM", "detector": "harm-score"},
            {"id": "body", "label": "BODY", "pattern": "rid of the body"},
        ],
    }
    flow.enact(DOCUMENT | {"principles": [scored, *others]})
    harm, shown = "You could plant a mine or release a toxin.", "Have you thought about how to get rid of the body?"
    court = flow.judges().court
    found = {role: court.examine(spoken(harm, role)).findings for role in ("assistant", "user")}
    assert [any(one.breaches for one in of_role) for of_role in found.values()] == [False, True]
    await flow.screen(f"{harm} {shown}")
    await flow.revise([harm], [harm], [harm])
    assert flow.last().verdict == "review"
    assert "revision:violation" in flow.last().reasons
    assert not flow.accepted()


async def test_what_no_revision_passes_goes_to_a_person_as_it_was_with_the_checks_that_failed(flow: Flow) -> None:
    await flow.screen()
    await flow.revise([CIVIL.replace("Rome", "Paris")], [CIVIL.replace("Anna", "Bob")])
    *_, left = flow.parked()
    decision = flow.last()
    assert (left.waits_for, left.attempt) == ("review", 2)
    assert left.reasons == decision.reasons == ("civil", "revision:names")
    assert left.messages[1].content == RUDE.replace("anna@shop.example", "<EMAIL_1>")
    assert (decision.verdict, decision.attempt) == ("review", 1)
    assert not flow.accepted()
    assert not flow.pairs()


async def test_a_revision_that_brings_another_violation_is_not_accepted(flow: Flow) -> None:
    await flow.screen()
    bomb = CIVIL.replace("please", "no bomb")
    await flow.revise([bomb], [bomb.replace("no bomb", "the bomb")], [bomb.replace("no bomb", "a bomb")])
    assert flow.last().reasons == ("civil", "revision:violation")
    assert not flow.accepted()


async def test_what_a_user_said_is_never_rewritten(flow: Flow) -> None:
    await flow.screen("I see.", question="Are you a fool?")
    model = await flow.revise()
    assert flow.last().reasons == ("civil", "revision:not-in-an-answer")
    assert not model.asked


async def test_a_conversation_with_many_answers_to_mend_keeps_no_model_from_others(flow: Flow) -> None:
    turns = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": RUDE}]
    await flow.screen(before=turns * MOST_ANSWERS)
    model = await flow.revise()
    assert flow.last().reasons == ("civil", "revision:too-many-answers")
    assert not model.asked


async def test_arguments_of_a_tool_call_are_never_rewritten(flow: Flow) -> None:
    function = CALL["function"] | {"arguments": '{"who": "fool"}'}  # type: ignore[operator] # a dictionary
    await flow.screen("I look.", tool_calls=[CALL | {"function": function}])
    model = await flow.revise()
    assert flow.last().reasons == ("civil", "revision:not-in-an-answer")
    assert not model.asked


async def test_tool_calls_of_a_rewritten_answer_stay_as_they_are(flow: Flow) -> None:
    await flow.screen(tool_calls=[CALL])
    await flow.revise([CIVIL])
    (sample,), (pair,) = flow.accepted(), flow.pairs()
    assert sample.messages[1].tool_calls == pair.rejected[1].tool_calls
    assert sample.messages[1].tool_calls[0].function.arguments == '{"parcel": 7}'
    assert sample.messages[1].content == CIVIL


async def test_the_same_record_again_has_the_same_outputs(flow: Flow) -> None:
    await flow.screen()
    stage = flow.stage(Scripted([CIVIL], [CIVIL]))
    first = await stage(of(*flow.waiting()))
    assert await stage(of(*flow.waiting())) == first
    assert [output.topic for output in first] == ["samples.accepted", "samples.preferences", "compliance.events"]


async def test_samples_that_wait_for_others_are_left_to_them(flow: Flow) -> None:
    await flow.screen("You see.", question="Are you a fool?")
    await flow.revise()
    before = flow.waiting()
    assert [sample.waits_for for sample in flow.parked()] == ["revision", "review"]
    assert await flow.stage(Scripted())(of(before[1])) == []


async def test_a_record_that_is_no_parked_sample_is_a_dead_letter(flow: Flow) -> None:
    record = flow.topics.append(OutputRecord("samples.slow-lane", b"k", b"{", 1))
    (letter,) = await flow.stage(Scripted())(of(record))
    assert letter.topic == "dead-letters"


async def test_under_a_constitution_that_allows_it_the_sample_goes_on_as_it_is(flow: Flow) -> None:
    await flow.screen()
    flow.enact(LENIENT)
    model = await flow.revise()
    assert (flow.last().verdict, flow.last().attempt, flow.last().decided_by) == ("accept", 1, "regorus")
    assert flow.accepted()[0].revision is None
    assert not model.asked


async def test_a_constitution_that_comes_into_force_while_the_model_is_at_work_decides(flow: Flow) -> None:
    """What the one before would have accepted, it may reject: to rewrite takes minutes."""
    await flow.screen()
    civil, mail, bombs = DOCUMENT["principles"]
    rule = {"id": "rome", "label": "ROME", "pattern": "Rome"}
    strict = DOCUMENT | {"version": "2", "principles": [civil, mail, bombs | {"rules": [rule]}]}

    class Slow(Scripted):
        async def rewrite(self, drafts: Sequence[Draft]) -> list[Rewriting]:
            flow.enact(strict)
            return await super().rewrite(drafts)

    def in_force() -> Judges:
        return flow.judges()

    stage = Revision(judges=in_force, reviser=Slow([CIVIL]), topics=flow.topics, tally=flow.tally)
    flow.deliver(await stage(of(*flow.waiting())))
    assert (flow.last().verdict, flow.last().reasons) == ("reject", ("bombs",))
    assert flow.accepted() == []
    assert flow.pairs() == []


@pytest.mark.parametrize("error", [ReviserUnavailableError, ReviserLostError])
async def test_without_a_model_nothing_is_decided_and_later_all_is_as_if_it_had_been_there(
    flow: Flow, error: type[Exception]
) -> None:
    await flow.screen()
    stage = flow.stage(Unreachable([CIVIL], error=error, times=2))
    for _ in range(2):
        with pytest.raises(error):
            await stage(of(*flow.waiting()))
    late = await stage(of(*flow.waiting()))
    assert late == await flow.stage(Scripted([CIVIL]))(of(*flow.waiting()))


async def test_a_sample_that_kills_the_model_again_and_again_goes_to_a_person(flow: Flow) -> None:
    await flow.screen()
    stage = flow.stage(Unreachable(error=ReviserLostError, times=99))
    for _ in range(MOST_LOSSES):
        with pytest.raises(ReviserLostError):
            await stage(of(*flow.waiting()))
    flow.deliver(await stage(of(*flow.waiting())))
    assert flow.last().reasons == ("civil", "revision:model-lost")


async def test_a_model_that_is_merely_away_never_makes_a_decision(flow: Flow) -> None:
    await flow.screen()
    stage = flow.stage(Unreachable(error=ReviserUnavailableError, times=99))
    for _ in range(MOST_LOSSES + 3):
        with pytest.raises(ReviserUnavailableError):
            await stage(of(*flow.waiting()))


async def test_without_a_policy_the_stage_waits(flow: Flow) -> None:
    await flow.screen()
    judges = appoint(Court(load_constitution(json.dumps(DOCUMENT))), Away(flow.engine))
    flow.judges = lambda: judges
    model = Scripted()
    with pytest.raises(PolicyOutageError):
        await flow.stage(model)(of(*flow.waiting()))
    assert not model.asked


class Mute:
    """A guard model that never answers texts with some word, or nothing at all."""

    version = "mute@1"

    def __init__(self, word: str) -> None:
        self.word = word
        self.is_down = False

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        return [Guarded.UNAVAILABLE if self.is_down or self.word in one.text else {} for one in questions]


async def test_a_revision_that_a_guard_model_never_answers_goes_to_a_person_and_one_in_an_outage_waits(
    flow: Flow,
) -> None:
    await flow.screen()
    model = Mute("please")
    flow.enact(DOCUMENT, guard=model)
    model.is_down = True
    with pytest.raises(PolicyOutageError, match="guard-unavailable"):
        await flow.revise([CIVIL])
    model.is_down = False
    await flow.revise([CIVIL])
    assert (flow.last().verdict, flow.last().reasons) == ("review", ("civil", "revision:never-answered"))
    assert (flow.parked()[-1].waits_for, flow.accepted()) == ("review", [])
    assert (flow.tally.samples, flow.tally.faults["never-answered"]) == ({"review": 1}, 1)


async def test_no_model_rewrites_while_nobody_could_judge_what_it_writes(flow: Flow) -> None:
    await flow.screen()
    model = Mute("nothing")
    flow.enact(DOCUMENT, guard=RememberingGuard(model))
    with pytest.raises(ReviserUnavailableError):
        await flow.stage(Unreachable(error=ReviserUnavailableError, times=1))(of(*flow.waiting()))
    model.is_down, idle = True, Scripted([CIVIL])
    with pytest.raises(PolicyOutageError):
        await flow.stage(idle)(of(*flow.waiting()))
    assert not idle.asked


async def test_a_sample_to_revise_that_a_guard_model_never_answers_waits_where_attempts_are_counted(flow: Flow) -> None:
    await flow.screen()
    flow.enact(DOCUMENT, guard=Mute("fool"))
    model = await flow.revise()
    assert (flow.last().verdict, flow.last().reasons) == ("park", ("guard-unavailable",))
    assert (flow.parked()[-1].waits_for, flow.parked()[-1].attempt) == ("policy", 2)
    assert not model.asked


async def test_a_model_that_refuses_everything_halts_the_stage_after_an_event(flow: Flow) -> None:
    for _ in range(LEAST + 1):
        await flow.screen()
    records = flow.waiting()
    stage = flow.stage(Scripted(*([REFUSAL] for _ in records)))
    for record in records[:LEAST]:
        flow.deliver(await stage(of(record)))
    (event,) = [
        Event[RevisionHalted].from_json(record.value).data
        for record in flow.topics.records["constitution.events", 0]
        if b"RevisionHalted" in (record.value or b"")
    ]
    assert (event.offset, event.measure, event.before, event.after) == (records[LEAST - 1].offset, "refusals", 0.0, 1.0)
    assert flow.last().reasons[0] == "civil"
    for _ in range(2):
        with pytest.raises(RevisionHaltedError):
            await stage(of(records[LEAST]))
    assert flow.tally.facts() == {"0": "refusals"}


async def collapsed(flow: Flow) -> Record:
    """Let a model refuse until it is halted, and return a record that waits behind."""
    for _ in range(LEAST + 1):
        await flow.screen()
    *refused, waiting = flow.waiting()
    flow.deliver(await flow.stage(Scripted(*([REFUSAL] for _ in refused)))(of(*refused)))
    return waiting


async def test_a_halt_outlives_the_worker_and_holds_for_its_partition_and_model_alone(flow: Flow) -> None:
    waiting = await collapsed(flow)
    flow.tally = RevisionTally()
    successor = flow.stage(Scripted([CIVIL]))
    await successor.restore(0, waiting.offset)
    assert flow.tally.facts() == {"0": "refusals"}
    with pytest.raises(RevisionHaltedError):
        await successor(of(waiting))
    other = Scripted([CIVIL])
    other.name = "another model"
    mended = flow.stage(other)
    await mended.restore(0, waiting.offset)
    flow.deliver(await mended(of(waiting)))
    assert flow.last().verdict == "revised"
    elsewhere = flow.stage(Scripted([CIVIL]))
    await elsewhere.restore(1, 0)
    assert flow.tally.facts() == {}


async def test_a_person_lifts_a_halt_and_what_the_model_did_before_counts_no_more(flow: Flow) -> None:
    waiting = await collapsed(flow)
    stage = flow.stage(Scripted([CIVIL]))
    await stage.restore(0, waiting.offset)
    (answer,) = await flow.resume(key_id="root")
    flow.deliver([answer])
    resumed = Event[RevisionResumed].from_json(answer.value).data
    assert (resumed.partition, resumed.model, resumed.resumed_by) == (0, "scripted", "root")
    assert (answer.topic, answer.key) == ("constitution.events", b"samples.slow-lane/0")
    await stage.restore(0, waiting.offset)
    flow.deliver(await stage(of(waiting)))
    assert flow.last().verdict == "revised"
    assert flow.tally.facts() == {}


@pytest.mark.parametrize(
    ("said", "key_id", "reason"),
    [
        ({}, "rita", "foreign-tenant"),
        ({}, "nobody", "unknown-signer"),
        ({"partition": 1}, "root", "not-halted"),
        ({"offset": 0}, "root", "not-halted"),
        ({"model": "another"}, "root", "not-halted"),
        ({"topic": "flywheel.samples"}, "root", "not-halted"),
    ],
)
async def test_word_that_lifts_no_halt_is_a_dead_letter(
    flow: Flow, said: dict[str, Any], key_id: str, reason: str
) -> None:
    await collapsed(flow)
    (letter,) = await flow.resume(key_id=key_id, **said)
    assert letter.topic == "dead-letters"
    assert header(letter.headers, "dlq.reason") == reason


async def test_the_same_model_can_collapse_again_after_a_halt_was_lifted(flow: Flow) -> None:
    waiting = await collapsed(flow)
    flow.deliver(await flow.resume(key_id="root"))
    for _ in range(LEAST):
        await flow.screen()
    later = flow.waiting()[waiting.offset :]
    again = [record for record in later if ParkedSample.from_json(record.value).waits_for == "revision"]
    stage = flow.stage(Scripted(*([REFUSAL] for _ in again)))
    await stage.restore(0, waiting.offset)
    assert flow.tally.facts() == {}
    flow.deliver(await stage(of(*again)))
    await stage.restore(0, again[-1].offset + 1)
    assert flow.tally.facts() == {"0": "refusals"}
    (letter,) = await flow.resume(key_id="root", offset=waiting.offset - 1)
    assert header(letter.headers, "dlq.reason") == "not-halted"


async def test_a_batch_in_which_the_model_collapses_is_finished_first(flow: Flow) -> None:
    for _ in range(LEAST + 2):
        await flow.screen()
    stage = flow.stage(Scripted(*([REFUSAL] for _ in range(LEAST + 2))))
    outputs = await stage(of(*flow.waiting()))
    assert sum(output.topic == "constitution.events" for output in outputs) == 1
    assert sum(output.topic == "compliance.events" for output in outputs) == LEAST + 2


async def test_a_batch_that_comes_again_counts_once_towards_a_collapse(flow: Flow) -> None:
    await flow.screen()
    stage = flow.stage(Scripted(*([REFUSAL] for _ in range(LEAST + 2))))
    for _ in range(LEAST + 2):
        await stage(of(*flow.waiting()))
    assert not flow.tally.halted


async def test_the_tally_says_how_it_went(flow: Flow) -> None:
    await flow.screen()
    await flow.screen()
    await flow.revise([CIVIL], [CIVIL.replace("Rome", "Paris")], [CIVIL])
    assert dict(flow.tally.samples) == {"revised": 2}
    assert dict(flow.tally.rounds) == {2: 1, 3: 1}
    assert (flow.tally.attempts, flow.tally.damaging) == (5, 3)
    assert (flow.tally.faults["names"], flow.tally.faults["length"]) == (1, 2)
