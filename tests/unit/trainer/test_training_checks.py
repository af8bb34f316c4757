from collections.abc import Sequence

import pytest

from ctrainer.trainer.training_checks import PROMPTS_AT_ONCE, SHARE, TrainingChecks

PROMPTS = [f"prompt {number}" for number in range(20)]


class World:
    """A model that takes `answering` seconds to answer, on a clock of its own."""

    def __init__(self, *, answering: float = 3.0) -> None:
        self.now = 0.0
        self.answering = answering
        self.asked: list[str] = []
        self.says = "a good answer to {}"
        self.checks = TrainingChecks(
            prompts=PROMPTS, answer=self.answer, base=self.base, judge=self.judge, clock=lambda: self.now
        )

    def answer(self, prompts: Sequence[str]) -> list[str]:
        self.now += self.answering
        self.asked += prompts
        return [self.says.format(prompt) for prompt in prompts]

    def base(self, prompts: Sequence[str]) -> list[str]:
        return [f"a good answer to {prompt}" for prompt in prompts]

    def judge(self, answers: Sequence[str]) -> list[bool]:
        return ["bad" not in answer for answer in answers]

    def train(self, blocks: int, *, seconds: float = 8.0) -> list[int]:
        """Train blocks of eight steps, and return after which steps the model was looked at."""
        steps = [8 * (block + 1) for block in range(blocks)]
        looked = []
        for step in steps:
            self.now += seconds
            if self.checks.after(step) is not None:
                looked.append(step)
        return looked


@pytest.mark.parametrize("answering", [0.1, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("seconds", [0.8, 8.0, 80.0])
def test_checks_take_a_tenth_of_the_time_of_training_and_are_as_frequent_as_that_allows(
    answering: float, seconds: float
) -> None:
    world = World(answering=answering)
    looked = world.train(400, seconds=seconds)
    assert looked
    trained = 400 * seconds
    # The cost of the very first check is known only after it.
    assert answering * (len(looked) - 1) <= SHARE * trained
    at_every_block = len(looked) >= 400 - 2
    assert at_every_block or answering * (len(looked) + 1) > 0.99 * SHARE * trained


def test_checks_take_the_prompts_in_turn() -> None:
    world = World(answering=0.0)
    world.train(8)
    assert world.asked[: len(PROMPTS)] == PROMPTS
    assert set(world.asked) == set(PROMPTS)
    assert len(world.asked) % PROMPTS_AT_ONCE == 0


@pytest.mark.parametrize("says", ["a bad answer to {}", "no no no no no no no", ""])
def test_a_model_that_says_what_is_not_accepted_or_always_the_same_has_collapsed_at_the_second_look(says: str) -> None:
    world = World(answering=0.0)
    world.train(3)
    assert not world.checks.collapsed
    world.says = says
    world.train(1)
    assert not world.checks.collapsed
    world.train(1)
    assert world.checks.collapsed


def test_a_check_tells_the_shares_beside_those_of_the_base_model() -> None:
    world = World(answering=0.0)
    world.says = "a bad answer to {}"
    found = world.checks.after(8)
    assert found is not None
    assert (found.prompts, found.compliance.base, found.compliance.adapted) == (PROMPTS_AT_ONCE, 1.0, 0.0)
    assert 0 < found.distinct_2.base == found.distinct_2.adapted < 1
