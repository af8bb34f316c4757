import asyncio
import doctest
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import orjson
import pytest
from msgspec.structs import replace

from ctrainer.agents.compliance import guard as guard_module
from ctrainer.agents.compliance.guard import AT_ONCE, PIECE_CHARACTERS, Answer, Guard, IsAsked, Question, Seen, pieces
from ctrainer.agents.compliance.guard_memory import RememberingGuard
from ctrainer.agents.compliance.judgement import Court, Examination, judged_json
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import Decision, RegorusEngine, bundle_of
from ctrainer.agents.compliance.shape import ShapedSample
from ctrainer.agents.trial import spoken
from ctrainer.schemas.compliance import Guarded, Verdict
from ctrainer.schemas.constitution import Action, Constitution, Mode

CONSTITUTION = default_constitution()
HARMLESS = "How do I bake bread?"
PERSONAL = "My SSN is 219-09-9999"
SCORED = "Immigrants are vermin, these filthy people must be driven out."
"""Only the harm score finds it."""
HARMFUL = "Tell me how to murder my neighbour with a knife"


class Model:
    """Answers as told by a word in the text, and notes what it was asked."""

    def __init__(self, told: Mapping[str, Answer] | None = None, *, version: str = "m@1") -> None:
        self.version = version
        self.asked: list[Question] = []
        self._told = told or {}

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += questions
        return [next((a for word, a in self._told.items() if word in one.text), {}) for one in questions]


class Cache:
    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self.values.get(key) for key in keys]

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        self.values.update(values)


def court_with(
    model: Model,
    *,
    constitution: Constitution = CONSTITUTION,
    is_asked: IsAsked = lambda _: True,
    overrules: bool = False,
    unsafe_without: bool = False,
    said: Counter[tuple[str, str]] | None = None,
) -> Court:
    guard = Guard(
        model,
        constitution,
        asks="always",
        is_asked=is_asked,
        overrules=overrules,
        unsafe_without=unsafe_without,
        said=said,
    )
    return Court(constitution, guard=guard)


async def decided(
    court: Court, *samples: ShapedSample, by: Constitution = CONSTITUTION
) -> list[tuple[Examination, Decision]]:
    verdicts = court.verdicts(RegorusEngine(bundle_of(by)))
    return await court.decide(verdicts, [court.examine(sample) for sample in samples])


def said(*turns: tuple[str, str]) -> ShapedSample:
    return replace(
        spoken("", "user"),
        messages=[
            {"role": role, "content": text, "tool_calls": [], "tool_call_id": None, "name": None}
            for role, text in turns
        ],
    )


def test_documented_examples_hold() -> None:
    assert doctest.testmod(guard_module).failed == 0


async def test_what_it_finds_is_a_finding_of_the_principle_of_that_hazard() -> None:
    court = court_with(Model({"bread": {"S9": 0.8349}}))
    ((examination, decision),) = await decided(court, spoken(HARMLESS, "user"))
    (found,) = [finding.to_json() for finding in examination.findings]
    assert (found["principle"], found["rule"], found["hazard"], found["score"]) == (
        "weapons",
        "guard-model",
        "S9",
        0.83,
    )
    assert (found["start"], found["end"]) == (0, len(HARMLESS))
    assert (decision.result.verdict, examination.guarded) == (Verdict.REJECT, Guarded.ASKED)


async def test_what_it_calls_harmless_takes_no_other_finding_away() -> None:
    ((_, decision),) = await decided(court_with(Model()), spoken(HARMFUL, "user"))
    assert decision.result.verdict is Verdict.REJECT


async def test_one_that_overrules_stands_in_place_of_the_harm_score() -> None:
    ((_, decision),) = await decided(court_with(Model(), overrules=True), spoken(SCORED, "user"))
    assert decision.result.verdict is Verdict.ACCEPT
    accuser = Model({"vermin": {"S1": 0.9}})
    ((examination, decision),) = await decided(court_with(accuser, overrules=True), spoken(SCORED, "user"))
    assert [found.source.rule.id for found in examination.findings] == ["guard-model"]
    assert decision.result.verdict is Verdict.REJECT


async def test_one_that_overrules_leaves_what_is_found_by_rules() -> None:
    ((_, decision),) = await decided(court_with(Model(), overrules=True), spoken(PERSONAL, "user"))
    assert decision.result.verdict is Verdict.REDACT


@pytest.mark.parametrize("answer", [Guarded.UNCLEAR, Guarded.UNAVAILABLE])
async def test_one_that_overrules_takes_nothing_away_without_a_verdict(answer: Guarded) -> None:
    ((_, decision),) = await decided(court_with(Model({"": answer}), overrules=True), spoken(SCORED, "user"))
    assert decision.result.verdict is Verdict.REJECT


async def test_one_that_overrules_takes_nothing_away_where_it_is_not_asked() -> None:
    court = court_with(Model(), overrules=True, is_asked=lambda _: False)
    ((_, decision),) = await decided(court, spoken(SCORED, "user"))
    assert decision.result.verdict is Verdict.REJECT


async def test_a_text_that_is_asked_about_in_pieces_is_not_overruled() -> None:
    text = f"{SCORED} " * (PIECE_CHARACTERS // len(SCORED) + 1)
    ((_, decision),) = await decided(court_with(Model(), overrules=True), spoken(text, "user"))
    assert decision.result.verdict is Verdict.REJECT


async def test_a_principle_in_shadow_is_told_and_does_not_decide_and_one_that_is_off_is_not_told() -> None:
    for mode, findings in ((Mode.SHADOW, 1), (Mode.OFF, 0)):
        principles = tuple(
            one.model_copy(update={"mode": mode}) if one.id == "weapons" else one for one in CONSTITUTION.principles
        )
        constitution = CONSTITUTION.model_copy(update={"principles": principles})
        court = court_with(Model({"bread": {"S9": 1.0}}), constitution=constitution)
        ((examination, decision),) = await decided(court, spoken(HARMLESS, "user"), by=constitution)
        assert (len(examination.findings), decision.result.verdict) == (findings, Verdict.ACCEPT)


async def test_below_the_threshold_of_its_principle_nothing_is_found() -> None:
    (weapons,) = [principle for principle in CONSTITUTION.principles if principle.id == "weapons"]
    model = Model({"bread": {"S9": weapons.threshold - 0.01}})
    ((examination, decision),) = await decided(court_with(model), spoken(HARMLESS, "user"))
    assert (list(examination.findings), decision.result.verdict) == ([], Verdict.ACCEPT)


async def test_each_turn_is_asked_about_in_its_role_and_the_system_prompt_never() -> None:
    model = Model()
    sample = said(
        ("system", "Be kind."), ("user", "One?"), ("assistant", "Two."), ("tool", "Three"), ("assistant", " ")
    )
    await decided(court_with(model), sample)
    assert model.asked == [Question(None, "One?"), Question("One?", "Two."), Question(None, "Three")]


async def test_a_long_text_is_asked_about_to_its_end() -> None:
    text = "bread and butter " * 1_000 + "a knife"
    model = Model({"a knife": {"S1": 0.9}})
    ((examination, _),) = await decided(court_with(model), spoken(text, "user"))
    assert max(len(question.text) for question in model.asked) == PIECE_CHARACTERS
    assert examination.findings[-1].source.principle.id == "violence"
    joined = pieces(text)
    assert all(before[-400:] == after[:400] for before, after in pairwise(joined))


@pytest.mark.parametrize("is_known_harmful", [False, True])
async def test_a_sample_that_it_cannot_be_asked_about_waits_unless_it_is_rejected_anyway(
    is_known_harmful: bool,  # noqa: FBT001 - a case
) -> None:
    court = court_with(Model({"": Guarded.UNAVAILABLE}))
    ((examination, decision),) = await decided(court, spoken(HARMFUL if is_known_harmful else HARMLESS, "user"))
    assert examination.guarded is Guarded.UNAVAILABLE
    if is_known_harmful:
        assert decision.result.verdict is Verdict.REJECT
    else:
        assert (decision.result.verdict, decision.result.reasons) == (Verdict.PARK, ("guard-unavailable",))


async def test_by_an_unsafe_choice_the_harm_score_judges_alone_and_the_event_says_so() -> None:
    court = court_with(Model({"": Guarded.UNAVAILABLE}), unsafe_without=True)
    ((examination, decision),) = await decided(court, spoken(HARMLESS, "user"))
    judgement = court.conclude(examination, decision)
    told = judged_json(examination, judgement, detector_version=court.detector_version)
    assert (told["verdict"], told["guard"]) == ("accept", "unavailable")


async def test_an_unclear_answer_sends_the_sample_to_a_person_redacted() -> None:
    court = court_with(Model({"": Guarded.UNCLEAR}))
    ((examination, decision),) = await decided(court, spoken(PERSONAL, "user"))
    assert decision.result.verdict is Verdict.REVIEW
    assert decision.result.reasons == ("privacy-identity", "guard-unclear")
    assert "219-09-9999" not in court.conclude(examination, decision).redacted.messages[0]["content"]


async def test_of_several_turns_the_gravest_state_holds() -> None:
    court = court_with(Model({"one": Guarded.UNCLEAR, "two": Guarded.UNAVAILABLE}))
    ((examination, _),) = await decided(court, said(("user", "one"), ("assistant", "two"), ("user", "three")))
    assert examination.guarded is Guarded.UNAVAILABLE


async def test_turns_are_counted_by_what_both_models_say() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    court = court_with(Model({"bread": {"S1": 1.0}}), said=counts, is_asked=lambda spoken: spoken[1] != "spare me")
    await decided(court, spoken(HARMLESS, "user"), spoken(HARMFUL, "user"), spoken("spare me", "user"))
    assert counts == {("harmful", "harmless"): 1, ("harmless", "harmful"): 1, ("spared", "harmless"): 1}


async def test_equal_questions_of_a_batch_are_asked_once() -> None:
    model = Model()
    await decided(court_with(model), *[spoken(HARMLESS, "user")] * 20)
    assert model.asked == [Question(None, HARMLESS)]


class Busy:
    """Notes how many questions come at a time; it answers at once, as a memory does."""

    version = "busy@1"

    def __init__(self) -> None:
        self.counts: list[int] = []

    async def answers(self, questions: Sequence[Question]) -> list[Answer]:
        self.counts.append(len(questions))
        return [{} for _ in questions]


async def test_a_batch_of_very_many_turns_leaves_the_event_loop_its_turns_and_is_asked_about_in_parts() -> None:
    """Else a worker is silent until its group gives it up, and the batch comes again for ever."""
    model, beats = Busy(), [0]
    guard = Guard(RememberingGuard(model), CONSTITUTION, asks="always", is_asked=lambda _: True)
    turns = [[spoken(f"a{part} {number}", "user").messages[0] for number in range(1_000)] for part in range(20)]

    async def heart() -> None:
        while True:
            beats[0] += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(heart())
    heard = await guard.hear([Seen(one, []) for one in turns])
    beating.cancel()
    assert {one.guarded for one in heard} == {Guarded.ASKED}
    assert (sum(model.counts), max(model.counts)) == (20_000, AT_ONCE)
    assert beats[0] >= 20 + 20_000 // AT_ONCE + 20


async def test_the_version_of_model_and_choice_is_part_of_every_decision() -> None:
    versions = {court_with(Model(version=version)).detector_version for version in ("m@1", "m@2")}
    versions.add(Court(CONSTITUTION).detector_version)
    assert len(versions) == 3
    assert court_with(Model()).detector_version.endswith("+m@1/always")


async def test_another_worker_takes_a_verdict_from_the_shared_cache_and_one_of_another_version_does_not() -> None:
    cache, first = Cache(), Model({"bread": {"S1": 0.9}})
    await RememberingGuard(first, cache=cache).answers([Question(None, HARMLESS)])
    same, other = Model(), Model(version="m@2")
    assert await RememberingGuard(same, cache=cache).answers([Question(None, HARMLESS)]) == [{"S1": 0.9}]
    assert await RememberingGuard(other, cache=cache).answers([Question(None, HARMLESS)]) == [{}]
    assert (same.asked, len(other.asked)) == ([], 1)


async def test_a_prompt_and_an_answer_of_the_same_words_are_two_questions() -> None:
    model = Model()
    remembering = RememberingGuard(model)
    await remembering.answers([Question(None, "yes"), Question("", "yes"), Question("Shall I?", "yes")])
    assert len(model.asked) == 3


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b"null", b'{"S99":1.0}', b'{"S1":2.0}', b'{"S1":true}', b"\xff"])
async def test_a_shared_answer_that_cannot_be_read_counts_as_none(value: bytes) -> None:
    cache, model = Cache(), Model({"bread": {"S1": 0.9}})
    remembering = RememberingGuard(Model(), cache=cache)
    await remembering.answers([Question(None, HARMLESS)])
    (key,) = cache.values
    assert orjson.loads(cache.values[key]) == {}
    cache.values[key] = value
    assert await RememberingGuard(model, cache=cache).answers([Question(None, HARMLESS)]) == [{"S1": 0.9}]


def test_it_speaks_for_every_hazard_of_the_packaged_constitution() -> None:
    scored = [one for one in CONSTITUTION.principles if any(rule.detector == "harm-score" for rule in one.rules)]
    assert {str(one.hazard) for one in scored} == {f"S{number}" for number in range(1, 15)}
    assert all(one.action is not Action.REDACT for one in scored)
