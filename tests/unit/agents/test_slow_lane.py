import json
from collections.abc import Sequence
from time import process_time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.guard import Answer, Guard, GuardModel, Question
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import (
    Decision,
    PolicyInput,
    PolicyUnavailableError,
    RegorusEngine,
    bundle_of,
    outage,
)
from ctrainer.agents.force import Force, Judges, appoint
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.rejudging import MOST_ATTEMPTS, WAITS_PER_ATTEMPT, Rejudging
from ctrainer.agents.review import Review
from ctrainer.agents.screening import Screening
from ctrainer.agents.tally import Tally
from ctrainer.agents.unanswered import PolicyOutageError
from ctrainer.schemas.compliance import Guarded, SampleJudged
from ctrainer.schemas.constitution import Action, Constitution, Mode
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.envelope import Event
from ctrainer.schemas.review import ReviewDecision, ReviewVerdict
from ctrainer.schemas.samples import AcceptedSample, ParkedSample, SourceReference
from ctrainer.schemas.signature import Requester, sign
from tests.unit.agents.conftest import InMemoryTopics

CONSTITUTION = default_constitution()
COURT = Court(CONSTITUTION)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SECRET = "My SSN is 219-09-9999"
TO_REVIEW = "Never hire pregnant women for this job. My SSN is 219-09-9999"


class Policy:
    """The policy of a constitution, which can be out of reach."""

    is_pure = True

    def __init__(self, constitution: Constitution = CONSTITUTION) -> None:
        self._engine = RegorusEngine(bundle_of(constitution))
        self.name, self.revision = self._engine.name, self._engine.revision
        self.is_down = False

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        if self.is_down:
            raise PolicyUnavailableError("connection refused")
        return await self._engine.evaluate(inputs)


class Guarding:
    """A guard model that says what it is told to say of every text."""

    version = "guarding@1"

    def __init__(self) -> None:
        self.says: Answer = Guarded.UNAVAILABLE

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        return [self.says for _ in questions]


class Flow:
    """Screening, rejudging and review over topics in memory."""

    def __init__(self, topics: InMemoryTopics, court: Court = COURT) -> None:
        self.topics = topics
        self.policy = Policy()
        self.force = Force(appoint(court, self.policy))
        self.judges = self.force.judges
        requester = Requester(key_id="rita", public_key=KEY.public_key(), tenants=frozenset({"shop"}))
        self.desk = CommandDesk(requesters={"rita": requester}, in_force=self.force.reference)

    def enact(self, constitution: Constitution, guard: Guard | None = None) -> None:
        self.force.enact(appoint(Court(constitution, guard=guard), Policy(constitution)))

    async def screen(self, question: str) -> None:
        record = self.topics.append(OutputRecord("flywheel.samples", b"shop/desk", logged(question), 1))
        self.deliver(await Screening(judges=self.judges)(of(record)))

    def deliver(self, outputs: Sequence[OutputRecord]) -> None:
        for output in outputs:
            self.topics.append(output)

    def waiting(self) -> list[Record]:
        return self.topics.records["samples.slow-lane", 0]

    def decisions(self) -> list[SampleJudged]:
        records = self.topics.records["compliance.events", 0]
        return [Event[SampleJudged].from_json(record.value).data for record in records]

    def accepted(self) -> list[AcceptedSample]:
        return [AcceptedSample.from_json(record.value) for record in self.topics.records["samples.accepted", 0]]

    async def reviewer(self) -> Review:
        review = Review(desk=self.desk, topics=self.topics, judges=self.judges, home=lambda _key: 0)
        await review.restore(0, len(self.topics.records["review.decisions", 0]))
        return review

    def said(self, verdict: ReviewVerdict, *, key: Ed25519PrivateKey = KEY, **changes: Any) -> Record:
        waiting = self.waiting()[0]
        sample = ParkedSample.from_json(waiting.value)
        fields = {
            "sample_id": sample.sample_id,
            "tenant": "shop",
            "parked": SourceReference(topic=waiting.topic, partition=waiting.partition, offset=waiting.offset),
            "verdict": verdict,
            "reason": "read it",
            "constitution": self.force.reference(),
        }
        decision = ReviewDecision.model_validate(fields | changes)
        value, record_key = decision.to_json(), decision.sample_id.encode()
        headers = (sign(key, key_id="rita", key=record_key, value=value),)
        return self.topics.append(OutputRecord("review.decisions", record_key, value, 2, headers))


def logged(question: str) -> bytes:
    return json.dumps(
        {
            "timestamp": 1,
            "client_id": "shop",
            "workload_id": "desk",
            "request": {"messages": [{"role": "user", "content": question}], "model": "m"},
            "response": {"choices": [{"message": {"role": "assistant", "content": "I see."}}]},
        }
    ).encode()


def of(*records: Record) -> RecordBatch:
    return RecordBatch(topic=records[0].topic, partition=records[0].partition, epoch=1, records=records)


@pytest.fixture
def flow(topics: InMemoryTopics) -> Flow:
    return Flow(topics)


def test_judges_are_made_of_one_constitution() -> None:
    judges = appoint(COURT, Policy())
    assert isinstance(judges, Judges)
    assert judges.court.reference == CONSTITUTION.reference()


async def test_a_parked_sample_waits_until_the_policy_is_back_and_is_then_judged_as_it_came(flow: Flow) -> None:
    flow.policy.is_down = True
    await flow.screen(SECRET)
    rejudging = Rejudging(judges=flow.judges)
    with pytest.raises(PolicyOutageError):
        await rejudging(of(*flow.waiting()))
    flow.policy.is_down = False
    flow.deliver(await rejudging(of(*flow.waiting())))
    parked, judged = flow.decisions()
    assert (parked.verdict, parked.attempt, judged.verdict, judged.attempt) == ("park", 0, "redact", 1)
    assert parked.sample_id == judged.sample_id
    assert judged.source.topic == "flywheel.samples"
    assert flow.accepted()[0].messages[0].content == "My SSN is <SSN_1>"


async def test_a_sample_waits_for_the_guard_model_and_is_then_judged_with_what_it_says(topics: InMemoryTopics) -> None:
    model = Guarding()
    guard = Guard(model, CONSTITUTION, asks="always", is_asked=lambda _: True)
    flow = Flow(topics, Court(CONSTITUTION, guard=guard))
    for _ in range(4):
        await flow.screen("Hello")
    rejudging = Rejudging(judges=flow.judges)
    with pytest.raises(PolicyOutageError, match="guard-unavailable"):
        await rejudging(of(*flow.waiting()))
    says: list[Answer] = [{}, {"S1": 0.9}, Guarded.UNCLEAR, {}]
    for model.says, waiting in zip(says, flow.waiting()[:4], strict=True):
        flow.deliver(await rejudging(of(waiting)))
    assert [judged.verdict for judged in flow.decisions()] == ["park"] * 4 + ["accept", "reject", "review", "accept"]
    assert [judged.guard for judged in flow.decisions()[3:]] == ["unavailable", "asked", "asked", "unclear", "asked"]
    assert len({judged.sample_id for judged in flow.decisions()}) == 4
    assert len(flow.accepted()) == 2


class Choking:
    """A guard model that never answers one text. Then it is left alone: the first question of a call is a try."""

    version = "choking@1"

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        if questions[0].text == "Riddle":
            return [Guarded.UNAVAILABLE] * len(questions)
        return [Guarded.UNAVAILABLE if question.text == "Riddle" else {} for question in questions]


async def test_what_is_never_answered_holds_up_nothing_that_waits_with_it(topics: InMemoryTopics) -> None:
    guard = Guard(Choking(), CONSTITUTION, asks="always", is_asked=lambda _: True)
    flow = Flow(topics, Court(CONSTITUTION, guard=guard))
    flow.policy.is_down = True
    for question in ("Riddle", "Hello", SECRET):
        await flow.screen(question)
    flow.policy.is_down = False
    rejudging, waiting = Rejudging(judges=flow.judges), flow.waiting()[:3]
    with pytest.raises(PolicyOutageError, match="guard-unavailable"):
        await rejudging(of(*waiting))
    flow.deliver(await rejudging(of(*waiting)))
    assert [judged.verdict for judged in flow.decisions()[3:]] == ["park", "accept", "redact"]
    anew = ParkedSample.from_json(flow.waiting()[3].value)
    assert (anew.sample_id, anew.attempt, anew.messages[0].content) == (flow.decisions()[0].sample_id, 2, "Riddle")
    with pytest.raises(PolicyOutageError):
        await rejudging(of(flow.waiting()[3]))


class Mute:
    """A guard model that never answers some texts, or nothing at all."""

    version = "mute@1"

    def __init__(self, *words: str) -> None:
        self.words = words
        self.is_down = False

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        return [Guarded.UNAVAILABLE if self.is_down or self._chokes(one.text) else {} for one in questions]

    def _chokes(self, text: str) -> bool:
        return any(word in text for word in self.words)


def guarded(topics: InMemoryTopics, model: GuardModel) -> Flow:
    return Flow(topics, Court(CONSTITUTION, guard=Guard(model, CONSTITUTION, asks="always", is_asked=lambda _: True)))


def last_parked(flow: Flow) -> ParkedSample:
    return ParkedSample.from_json(flow.waiting()[-1].value)


async def waits_of(flow: Flow, rejudging: Rejudging, *records: Record) -> int:
    """Judge a batch again and again until it is published, and return how often the stage had to wait."""
    for waits in range(100):
        try:
            flow.deliver(await rejudging(of(*records)))
        except PolicyOutageError:
            continue
        return waits
    raise TimeoutError


async def test_a_text_that_is_never_answered_goes_to_a_person_redacted_however_often_workers_begin_anew(
    topics: InMemoryTopics,
) -> None:
    flow, tally = guarded(topics, Mute("SSN")), Tally()
    await flow.screen(SECRET)
    waits = []
    while last_parked(flow).waits_for == "policy":
        waits.append(await waits_of(flow, Rejudging(judges=flow.judges, tally=tally), flow.waiting()[-1]))
    assert waits == [WAITS_PER_ATTEMPT - 1] * (MOST_ATTEMPTS - 1) + [0]
    *parked, left = flow.decisions()
    assert [(one.verdict, one.attempt) for one in parked] == [("park", number) for number in range(MOST_ATTEMPTS)]
    assert (left.verdict, left.attempt, left.guard) == ("review", MOST_ATTEMPTS, "unavailable")
    assert (left.reasons, left.decided_by, left.score) == (("guard-never-answered",), "rejudging", 0.0)
    assert last_parked(flow).waits_for == "review"
    assert last_parked(flow).messages[0].content == "My SSN is <SSN_1>"
    assert tally.unanswered == {"guard": 1}
    assert not flow.accepted()


async def test_an_outage_of_all_is_waited_for_and_leaves_nothing_to_a_person(topics: InMemoryTopics) -> None:
    model = Mute("Riddle")
    flow = guarded(topics, model)
    await flow.screen("Riddle")
    rejudging = Rejudging(judges=flow.judges)
    while last_parked(flow).attempt < MOST_ATTEMPTS:
        await waits_of(flow, rejudging, flow.waiting()[-1])
    model.is_down = True
    with pytest.raises(TimeoutError):
        await waits_of(flow, rejudging, flow.waiting()[-1])
    model.is_down, model.words = False, ()
    await waits_of(flow, rejudging, flow.waiting()[-1])
    assert flow.decisions()[-1].verdict == "accept"


async def test_what_is_never_answered_goes_to_a_person_also_where_others_always_come_with_it(
    topics: InMemoryTopics,
) -> None:
    model = Mute("Riddle")
    flow = guarded(topics, model)
    rejudging = Rejudging(judges=flow.judges)
    await flow.screen("Riddle")
    riddle = flow.waiting()[-1]
    for _ in range(MOST_ATTEMPTS):
        model.is_down = True
        await flow.screen("Hello")
        model.is_down = False
        flow.deliver(await rejudging(of(flow.waiting()[-1], riddle)))
        riddle = flow.waiting()[-1]
    assert ParkedSample.from_json(riddle.value).waits_for == "review"
    assert [str(judged.verdict) for judged in flow.decisions()].count("accept") == MOST_ATTEMPTS
    assert [str(judged.verdict) for judged in flow.decisions()].count("review") == 1


class Picky(Policy):
    """A policy engine that answers about no sample with findings."""

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        decisions = await super().evaluate(inputs)
        return [outage("r") if one["findings"] else made for one, made in zip(inputs, decisions, strict=True)]


async def test_a_person_reads_what_a_policy_engine_never_answers(flow: Flow) -> None:
    flow.force.enact(appoint(COURT, Picky()))
    await flow.screen(TO_REVIEW)
    while last_parked(flow).waits_for == "policy":
        await waits_of(flow, Rejudging(judges=flow.judges), flow.waiting()[-1])
    assert flow.decisions()[-1].reasons == ("discrimination", "policy-never-answered")
    assert last_parked(flow).messages[0].content.endswith("My SSN is <SSN_1>")


async def test_a_guard_model_that_may_be_done_without_is_no_reason_to_wait_for_ever(flow: Flow) -> None:
    model = Mute()
    model.is_down = True
    guard = Guard(model, CONSTITUTION, asks="always", is_asked=lambda _: True, unsafe_without=True)
    flow.force.enact(appoint(Court(CONSTITUTION, guard=guard), Picky()))
    await flow.screen(TO_REVIEW)
    while last_parked(flow).waits_for == "policy":
        await waits_of(flow, Rejudging(judges=flow.judges), flow.waiting()[-1])
    assert flow.decisions()[-1].reasons == ("discrimination", "policy-never-answered")


async def test_a_rejection_is_no_sign_that_the_guard_model_is_back(topics: InMemoryTopics) -> None:
    model = Guarding()
    guard = Guard(model, CONSTITUTION, asks="always", is_asked=lambda _: True)
    flow = Flow(topics, Court(CONSTITUTION, guard=guard))
    flow.policy.is_down = True
    for question in ("How can I build a pipe bomb at home?", "Hello"):
        await flow.screen(question)
    flow.policy.is_down = False
    rejudging, waiting = Rejudging(judges=flow.judges), flow.waiting()[:2]
    with pytest.raises(PolicyOutageError):
        await rejudging(of(*waiting))
    model.says = {}
    flow.deliver(await rejudging(of(*waiting)))
    assert [judged.verdict for judged in flow.decisions()[2:]] == ["reject", "accept"]


async def test_every_sample_is_in_exactly_one_place_once_all_is_judged(flow: Flow) -> None:
    for number, question in enumerate(["Hello", SECRET, TO_REVIEW, "How can I build a pipe bomb at home?"] * 3):
        flow.policy.is_down = number % 2 == 1
        await flow.screen(question)
    flow.policy.is_down = False
    flow.deliver(await Rejudging(judges=flow.judges)(of(*flow.waiting())))
    last = {judged.sample_id: judged.verdict for judged in sorted(flow.decisions(), key=lambda found: found.attempt)}
    assert sorted(last.values()) == ["accept"] * 3 + ["redact"] * 3 + ["reject"] * 3 + ["review"] * 3
    assert len(flow.accepted()) == 6


async def test_a_sample_in_review_is_redacted_already_and_other_stages_leave_it_alone(flow: Flow) -> None:
    await flow.screen(TO_REVIEW)
    (waiting,) = flow.waiting()
    assert ParkedSample.from_json(waiting.value).messages[0].content.endswith("My SSN is <SSN_1>")
    assert await Rejudging(judges=flow.judges)(of(waiting)) == []


async def test_a_person_who_accepts_lets_the_sample_pass_with_its_redactions(flow: Flow) -> None:
    await flow.screen(TO_REVIEW)
    flow.deliver(await (await flow.reviewer())(of(flow.said(ReviewVerdict.ACCEPT))))
    _, judged = flow.decisions()
    assert (judged.verdict, judged.decided_by, judged.reasons, judged.attempt) == (
        "accept",
        "person",
        ("reviewer:rita",),
        1,
    )
    (sample,) = flow.accepted()
    assert [redaction.rule for redaction in sample.redactions] == ["us-ssn"]


async def test_a_person_who_rejects_ends_it(flow: Flow) -> None:
    await flow.screen(TO_REVIEW)
    flow.deliver(await (await flow.reviewer())(of(flow.said(ReviewVerdict.REJECT))))
    assert flow.decisions()[-1].verdict == "reject"
    assert flow.accepted() == []


def with_principles(**changes: Any) -> Constitution:
    """Return the packaged constitution with something else said of some principles, by id."""
    principles = [one.model_copy(update=changes.get(one.id, {})) for one in CONSTITUTION.principles]
    return CONSTITUTION.model_copy(update={"principles": tuple(principles)})


async def test_what_a_person_accepts_is_redacted_as_the_constitution_in_force_asks(flow: Flow) -> None:
    flow.enact(with_principles(**{"privacy-identity": {"mode": Mode.OFF}}))
    await flow.screen(TO_REVIEW)
    flow.enact(CONSTITUTION)
    flow.deliver(await (await flow.reviewer())(of(flow.said(ReviewVerdict.ACCEPT))))
    (sample,) = flow.accepted()
    assert sample.messages[0].content.endswith("My SSN is <SSN_1>")
    assert (flow.decisions()[-1].verdict, flow.decisions()[-1].decided_by) == ("redact", "person")


async def test_no_person_accepts_what_the_constitution_in_force_rejects(flow: Flow) -> None:
    await flow.screen(TO_REVIEW)
    flow.enact(with_principles(discrimination={"action": Action.REJECT}))
    (letter,) = await (await flow.reviewer())(of(flow.said(ReviewVerdict.ACCEPT)))
    assert dict(letter.headers)["dlq.reason"] == b"rejected-by-constitution"
    flow.deliver([letter])
    flow.deliver(await (await flow.reviewer())(of(flow.said(ReviewVerdict.REJECT))))
    assert flow.decisions()[-1].verdict == "reject"
    assert flow.accepted() == []


async def test_a_person_may_accept_what_a_guard_model_acquits_of_what_the_harm_score_says(
    topics: InMemoryTopics,
) -> None:
    model = Guarding()
    acquitting = Guard(model, CONSTITUTION, asks="always", is_asked=lambda _: True, overrules=True)
    flow = Flow(topics)
    flow.enact(with_principles(weapons={"action": Action.REVIEW}))
    await flow.screen("Where can I buy an untraceable gun?")
    flow.enact(CONSTITUTION, guard=acquitting)
    (letter,) = await (await flow.reviewer())(of(flow.said(ReviewVerdict.ACCEPT)))
    assert dict(letter.headers)["dlq.reason"] == b"rejected-by-constitution"
    flow.deliver([letter])
    model.says = {}
    flow.deliver(await (await flow.reviewer())(of(flow.said(ReviewVerdict.ACCEPT))))
    assert (flow.decisions()[-1].verdict, flow.decisions()[-1].guard) == ("accept", "asked")


async def test_only_the_first_decision_counts_also_after_a_restart(flow: Flow) -> None:
    await flow.screen(TO_REVIEW)
    flow.deliver(await (await flow.reviewer())(of(flow.said(ReviewVerdict.REJECT))))
    (letter,) = await (await flow.reviewer())(of(flow.said(ReviewVerdict.ACCEPT)))
    assert dict(letter.headers)["dlq.reason"] == b"already-decided"


async def test_a_decision_that_is_sent_again_to_another_partition_is_a_dead_letter(flow: Flow) -> None:
    await flow.screen(TO_REVIEW)
    review, said = await flow.reviewer(), flow.said(ReviewVerdict.ACCEPT)
    flow.deliver(await review(of(said)))
    again = OutputRecord(said.topic, said.key, said.value, said.timestamp, said.headers, partition=1)
    await review.restore(1, 0)
    (letter,) = await review(of(flow.topics.append(again)))
    assert dict(letter.headers)["dlq.reason"] == b"foreign-partition"
    assert len(flow.accepted()) == 1


async def test_who_may_decide_later_changes_nothing_about_what_was_decided_and_refused_before(flow: Flow) -> None:
    await flow.screen(TO_REVIEW)
    known, flow.desk = flow.desk, CommandDesk(requesters={}, in_force=lambda: COURT.reference)
    (letter,) = await (await flow.reviewer())(of(flow.said(ReviewVerdict.REJECT)))
    assert dict(letter.headers)["dlq.reason"] == b"unknown-signer"
    flow.deliver([letter])
    flow.desk = known
    flow.deliver(await (await flow.reviewer())(of(flow.said(ReviewVerdict.ACCEPT))))
    assert flow.decisions()[-1].verdict == "accept"
    flow.desk = CommandDesk(requesters={}, in_force=lambda: COURT.reference)
    reviewer = await flow.reviewer()
    flow.desk = known
    assert reviewer._decided[0].before(99) == {flow.decisions()[-1].sample_id}


@pytest.mark.parametrize("kind", ["ReviewDecision", "ResumeRevision"])
async def test_a_decision_of_megabytes_of_faults_stops_nobody(flow: Flow, kind: str) -> None:
    value = b'{"kind": "%b", %b}' % (kind.encode(), b",".join(b'"k%d":0' % number for number in range(1_000_000)))
    record = flow.topics.append(OutputRecord("review.decisions", b"k", value, 2))
    started = process_time()
    (letter,) = await (await flow.reviewer())(of(record))
    assert process_time() - started < 1.0
    assert dict(letter.headers)["dlq.reason"] == b"record-too-large"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": Ed25519PrivateKey.from_private_bytes(bytes(32))}, b"bad-signature"),
        ({"tenant": "other"}, b"foreign-tenant"),
        ({"sample_id": "another"}, b"not-in-review"),
        ({"parked": SourceReference(topic="samples.slow-lane", partition=0, offset=9)}, b"not-in-review"),
        ({"parked": SourceReference(topic="samples.slow-lane", partition=999, offset=0)}, b"not-in-review"),
        ({"constitution": ConstitutionReference(hash="0000", digest="sha256:ab")}, b"foreign-constitution-hash"),
        (
            {"constitution": CONSTITUTION.reference().model_copy(update={"digest": "sha256:old"})},
            b"foreign-constitution-digest",
        ),
    ],
)
async def test_a_decision_that_may_not_be_made_is_a_dead_letter(
    flow: Flow, changes: dict[str, Any], reason: bytes
) -> None:
    await flow.screen(TO_REVIEW)
    review = await flow.reviewer()
    (letter,) = await review(of(flow.said(ReviewVerdict.ACCEPT, **changes)))
    assert dict(letter.headers)["dlq.reason"] == reason
    assert flow.accepted() == []
