from dataclasses import replace

import pytest

from ctrainer.schemas.privacy import Mechanism, NoMechanism, PrivacyMode, PrivacyUnit
from ctrainer.schemas.training import PrivacySettings, TrainingAssignment
from ctrainer.streams.training_session import plan_of
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan
from tests.assigned import PLAN, assignment, request


def assigned(mechanism: Mechanism | NoMechanism, **privacy: bool) -> TrainingAssignment:
    made = assignment(
        request=request(privacy=PrivacySettings(unit=PrivacyUnit.USER, **privacy)),
        mechanism=mechanism,
        epsilon_planned=PLAN.epsilon_planned if isinstance(mechanism, Mechanism) else None,
    )
    return TrainingAssignment.from_json(made.to_json())


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, mode=PrivacyMode.SINGLE_PASS),
        replace(PLAN, mode=PrivacyMode.SINGLE_PASS_CORRELATED, bands=8),
        replace(PLAN, unit=PrivacyUnit.USER, records_per_user=4),
        replace(PLAN, unit=PrivacyUnit.USER, whole_users=True),
    ],
)
def test_a_session_trains_by_the_plan_that_the_desk_made(plan: PrivacyPlan) -> None:
    assert plan_of(assigned(plan.mechanism())) == plan


@pytest.mark.parametrize("whole_users", [False, True])
def test_a_session_without_a_mechanism_trains_without_privacy(*, whole_users: bool) -> None:
    mechanism = NoMechanism(unsafe_non_private=True, sampling_rate=0.02, expected_batch_size=6.0)
    plan = plan_of(assigned(mechanism, whole_users=whole_users, unsafe_non_private=True))
    assert plan == NonPrivatePlan(sampling_rate=0.02, expected_batch_size=6.0, steps=40, whole_users=whole_users)
