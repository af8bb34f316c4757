from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ctrainer.schemas.privacy import PrivacyUnit
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.micro_batch import MicroBatch
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.per_sample import per_sample_gradients
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import EncodedExample
from tests import assigned

Examples = Callable[[int], list[EncodedExample]]
PLAN = replace(assigned.PLAN, clip_norm=0.02, unit=PrivacyUnit.USER, whole_users=True)


@pytest.fixture
def step(adapted: LanguageModel) -> Iterator[PrivateStep]:
    with per_sample_gradients(adapted.model) as gradients:
        yield PrivateStep(
            model=adapted.model,
            gradients=gradients,
            plan=PLAN,
            randomness=Randomness.unsafe_from_seed(8),
            computation=Computation(micro_batch=MicroBatch(3)),
            pad_token_id=0,
        )


def flat(totals: list[Tensor]) -> Tensor:
    return torch.cat(totals).double()


def test_a_user_adds_the_mean_of_its_records_clipped_once(step: PrivateStep, examples: Examples) -> None:
    rows = examples(5)
    step.plan = replace(PLAN, clip_norm=1e9)
    mean = sum((flat(step.signal([row]).totals) for row in rows), torch.zeros(1)) / 5
    step.plan = PLAN
    found = step.user_signal([rows])
    expected = mean * min(1.0, PLAN.clip_norm / float(mean.norm()))
    assert float(mean.norm()) > PLAN.clip_norm
    assert float((flat(found.totals) - expected).norm() / expected.norm()) < 1e-5
    assert found.largest == pytest.approx(PLAN.clip_norm, rel=1e-5)


@pytest.mark.parametrize("clip_norm", [0.002, 0.02, 0.2, 5.0])
def test_leaving_out_a_user_with_all_records_moves_the_sum_by_at_most_the_clip_norm(
    step: PrivateStep, examples: Examples, clip_norm: float
) -> None:
    rows = examples(9)
    users = [rows[:1], rows[1:6], rows[6:]]
    step.plan = replace(PLAN, clip_norm=clip_norm)
    whole = flat(step.user_signal(users).totals)
    for place in range(len(users)):
        rest = flat(step.user_signal([*users[:place], *users[place + 1 :]]).totals)
        assert float((whole - rest).norm()) <= clip_norm * (1 + 1e-5)


def test_users_without_records_to_learn_give_nothing(step: PrivateStep) -> None:
    assert not flat(step.user_signal([]).totals).any()
