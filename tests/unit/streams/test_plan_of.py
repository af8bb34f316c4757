from dataclasses import replace
from uuid import UUID

import pytest

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.privacy import Mechanism, NoMechanism, PrivacyMode, PrivacyUnit
from ctrainer.schemas.training import Desired, PrivacySettings, TrainAdapter, TrainingAssignment
from ctrainer.streams.training_session import plan_of
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan

PLAN = PrivacyPlan(
    noise_multiplier=0.9,
    sampling_rate=0.02,
    expected_batch_size=6.0,
    clip_norm=0.7,
    steps=40,
    delta=1e-5,
    epsilon_ceiling=8.0,
    epsilon_planned=7.0,
)


def assigned(mechanism: Mechanism | NoMechanism, **privacy: bool) -> TrainingAssignment:
    request = TrainAdapter(
        request_id=UUID(int=1),
        tenant="acme",
        dataset_id="d",
        constitution=ConstitutionReference(hash="h", digest="sha256:00"),
        privacy=PrivacySettings(unit=PrivacyUnit.USER, **privacy),
    )
    made = TrainingAssignment(
        session_id="s",
        tenant="acme",
        desired=Desired.TRAINED,
        request=request,
        scope="acme/default",
        mechanism=mechanism,
        steps=40,
        epsilon_planned=7.0 if isinstance(mechanism, Mechanism) else None,
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
