import pytest
import torch

from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.revision import Draft, Prompts
from ctrainer.trainer.revision_prompts import KEEP, bare_answer, critique_chat, instructions, revision_chat
from ctrainer.trainer.rewriting import rewrite

CIVIL = Prompts("Say whom it insults.", "Make it civil.")
SAFE = Prompts("Say what is unsafe.", "Make it safe.")


@pytest.fixture
def talkative(tiny: LanguageModel) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in tiny.model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return tiny


def drafts(count: int) -> list[Draft]:
    return [
        Draft(f"what {number}?", "you fool " * (1 + number % 3), (CIVIL, SAFE)[: 1 + number % 2])
        for number in range(count)
    ]


def test_each_draft_has_one_rewriting_and_the_same_one_again(talkative: LanguageModel) -> None:
    asked = drafts(3)
    first = rewrite(talkative, asked, at_once=2)
    assert len(first) == len(asked)
    assert rewrite(talkative, asked, at_once=2) == first
    assert len({one.text for one in first}) > 1


def test_a_second_principle_goes_on_from_the_first_ones_rewriting(talkative: LanguageModel) -> None:
    one = rewrite(talkative, [Draft("what?", "you fool", (CIVIL,))])[0]
    both = rewrite(talkative, [Draft("what?", "you fool", (CIVIL, SAFE))])[0]
    assert rewrite(talkative, [Draft("what?", one.text, (SAFE,))])[0] == both


def test_a_model_sees_question_answer_principle_and_its_own_criticism() -> None:
    critique = critique_chat("Why?", "You fool.", CIVIL.critique)
    chat = revision_chat(critique, "It insults.", CIVIL.revision, KEEP)
    assert [turn["role"] for turn in chat] == ["user", "assistant", "user"]
    assert "Question: Why?\n\nAnswer: You fool.\n\nSay whom it insults." in chat[0]["content"]
    assert chat[1]["content"] == "It insults."
    assert chat[2]["content"].startswith(f"Make it civil. {KEEP} ")


def test_a_long_question_is_cut_and_an_answer_never() -> None:
    (turn,) = critique_chat("q" * 5_000, "a" * 2_000, "Say.")
    assert "a" * 2_000 in turn["content"]
    assert len(turn["content"]) < 3_000


def test_all_that_a_model_is_told_is_known_as_instructions() -> None:
    chat = revision_chat(critique_chat("Why?", "You fool.", CIVIL.critique), "It insults.", CIVIL.revision, KEEP)
    told = instructions([CIVIL])
    for part in (CIVIL.critique, CIVIL.revision, KEEP, chat[2]["content"].rsplit(". ", 1)[-1]):
        assert part in told


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("  It comes. ", "It comes."),
        ("New answer: It comes.", "It comes."),
        ("The revised answer is:\nIt comes.", "It comes."),
        ('"It comes."', "It comes."),
        ('"Yes" and "no"', '"Yes" and "no"'),
        ("The answer to this comes on Monday: wait.", "The answer to this comes on Monday: wait."),
    ],
)
def test_labels_and_quotes_around_an_answer_are_taken_off(said: str, answer: str) -> None:
    assert bare_answer(said) == answer
