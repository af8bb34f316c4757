from collections.abc import Sequence

import pytest

from ctrainer.trainer.excision import Place
from ctrainer.trainer.meaning import Fault
from ctrainer.trainer.revision import MOST_CHARACTERS, MOST_ROUNDS, Draft, Outcome, Passage, Prompts, Rewriting, revise
from ctrainer.trainer.revision_prompts import KEEP
from tests.unit.trainer.scripted_reviser import Scripted

PROMPTS = (Prompts("Say whom it insults.", "Make it civil."),)
RUDE = "Listen, you fool: the parcel for Anna comes to Rome on Monday."
CIVIL = "Listen, please: the parcel for Anna comes to Rome on Monday."


async def is_clean(texts: Sequence[tuple[int, str]]) -> list[bool]:
    return ["fool" not in text for _, text in texts]


def passage(answer: str = RUDE, *places: Place) -> Passage:
    return Passage(question="Where is it?", answer=answer, prompts=PROMPTS, places=places)


async def revised(model: Scripted, *passages: Passage) -> list[Outcome]:
    return await revise(passages or [passage()], reviser=model, is_clean=is_clean)


async def test_the_first_revision_that_passes_is_the_last() -> None:
    model = Scripted([CIVIL])
    (outcome,) = await revised(model)
    assert (outcome.revised, outcome.rounds, outcome.faults) == (CIVIL, 1, ())
    assert model.asked == [[Draft("Where is it?", RUDE, PROMPTS)]]


async def test_a_breach_that_stays_is_rewritten_from_where_the_model_is() -> None:
    still = "Listen, fool: the parcel for Anna comes to Rome on Monday."
    model = Scripted([still], [CIVIL])
    (outcome,) = await revised(model)
    assert (outcome.revised, outcome.rounds) == (CIVIL, 2)
    assert outcome.attempts[0].faults == (Fault.VIOLATION,)
    assert model.asked[1] == [Draft("Where is it?", still, PROMPTS)]


async def test_what_was_damaged_is_never_built_upon() -> None:
    model = Scripted([CIVIL.replace("Rome", "Paris")], [CIVIL])
    (outcome,) = await revised(model)
    assert (outcome.revised, outcome.rounds) == (CIVIL, 2)
    assert outcome.attempts[0].faults == (Fault.NAMES,)
    assert model.asked[1] == [Draft("Where is it?", RUDE, PROMPTS, KEEP)]


async def test_after_three_rounds_nothing_is_accepted() -> None:
    stubborn = [f"Listen, fool{'s' * count}: the parcel for Anna comes to Rome on Monday." for count in (1, 2, 3)]
    model = Scripted(*([text] for text in stubborn))
    (outcome,) = await revised(model)
    assert (outcome.revised, outcome.rounds, outcome.faults) == (None, MOST_ROUNDS, (Fault.VIOLATION,))
    assert model.said == []


async def test_a_model_is_not_asked_the_same_twice() -> None:
    lost = CIVIL.replace("Rome", "Paris")
    model = Scripted([lost], [lost])
    (outcome,) = await revised(model)
    assert (outcome.revised, outcome.rounds, len(model.asked)) == (None, 2, 2)


async def test_a_refusal_ends_the_rounds() -> None:
    model = Scripted(["I'm sorry, but I can't help with that."])
    (outcome,) = await revised(model)
    assert outcome.revised is None
    assert Fault.REFUSAL in outcome.faults


async def test_a_rewriting_that_was_cut_off_is_not_accepted() -> None:
    model = Scripted([Rewriting(CIVIL, is_whole=False)], [CIVIL])
    (outcome,) = await revised(model)
    assert outcome.attempts[0].faults == (Fault.CUT_OFF,)
    assert outcome.revised == CIVIL


async def test_a_rewriting_with_another_meaning_is_not_accepted() -> None:
    (outcome,) = await revised(Scripted([CIVIL], [CIVIL], similarity=0.1))
    assert outcome.revised is None
    assert outcome.faults == (Fault.MEANING,)


async def test_a_sentence_that_a_rule_hits_is_left_out_first_and_no_model_is_asked() -> None:
    answer = "You fool. The parcel for Anna comes to Rome on Monday."
    model = Scripted()
    (outcome,) = await revised(model, passage(answer, Place(0, 8)))
    assert (outcome.revised, outcome.rounds) == ("The parcel for Anna comes to Rome on Monday.", 1)
    assert not outcome.attempts[0].by_model


async def test_an_answer_that_is_all_breach_goes_to_the_model() -> None:
    model = Scripted([CIVIL])
    (outcome,) = await revised(model, passage(RUDE, Place(0, 16)))
    assert (outcome.revised, outcome.rounds) == (CIVIL, 1)


async def test_leaving_out_too_much_is_a_round_that_failed() -> None:
    answer = "You fool, the parcel that you always ask us about comes when it comes. Good."
    civil = "The parcel that you always ask us about comes when it comes. Good."
    (outcome,) = await revised(Scripted([civil]), passage(answer, Place(0, 8)))
    assert Fault.LENGTH in outcome.attempts[0].faults
    assert (outcome.revised, outcome.rounds) == (civil, 2)


async def test_passages_go_through_the_rounds_together() -> None:
    still = "Listen, fool: the parcel for Anna comes to Rome on Monday."
    model = Scripted([CIVIL, still], [CIVIL])
    first, second = await revised(model, passage(), passage())
    assert (first.rounds, second.rounds) == (1, 2)
    assert [len(drafts) for drafts in model.asked] == [2, 1]


async def test_a_very_long_answer_is_not_given_to_a_model() -> None:
    model = Scripted()
    (outcome,) = await revised(model, passage("You fool, " + "so it is, " * (MOST_CHARACTERS // 10)))
    assert (outcome.revised, outcome.rounds) == (None, 0)
    assert outcome.faults


async def test_a_model_that_cannot_be_asked_is_an_error_and_no_outcome() -> None:
    class Gone(Scripted):
        async def rewrite(self, drafts: Sequence[Draft]) -> list[Rewriting]:
            raise ConnectionError(f"{len(drafts)} drafts")

    with pytest.raises(ConnectionError):
        await revised(Gone())
