import pytest

from ctrainer.trainer.answers import distinct_share, is_refusal


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't assist with that request.",
        "I\u2019m not able to do that.",
        "I cannot provide this information.",
        "As an AI language model, I am unable to talk about it.",
        "I must decline.",
        "This is against our guidelines.",
        "",
        " \n",
    ],
)
def test_a_refusal_or_silence_is_told(answer: str) -> None:
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "The capital of France is Paris.",
        "You can't boil an egg without water, and I can help you with that.",
        "I'm sorry that the parcel is late. It arrives tomorrow.",
        "Put it in the oven. " * 20 + "I can't help with that.",
    ],
)
def test_an_answer_is_no_refusal(answer: str) -> None:
    assert not is_refusal(answer)


def test_repeated_answers_are_less_distinct() -> None:
    varied, repeated = ["one two three", "four five six"], ["one two three", "one two three"]
    assert distinct_share(varied, 2) == 1.0
    assert distinct_share(repeated, 2) == 0.5


def test_runs_do_not_cross_from_one_answer_to_the_next() -> None:
    assert distinct_share(["a b", "b a"], 2) == 1.0
    assert distinct_share(["a", "b"], 2) == 0.0
