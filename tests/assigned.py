"""Sessions, their requests and plans, as tests need them: a test says what matters to it, the rest is as here."""

from typing import Any
from uuid import UUID

from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.training import Desired, TrainAdapter, TrainingAssignment
from ctrainer.trainer.plan import PrivacyPlan

CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:00")
PLAN = PrivacyPlan(
    noise_multiplier=0.6,
    sampling_rate=0.02,
    expected_batch_size=6.0,
    clip_norm=1.0,
    steps=40,
    delta=1e-5,
    epsilon_ceiling=8.0,
    epsilon_planned=7.0,
)


def request(**changes: Any) -> TrainAdapter:
    fields = {"request_id": UUID(int=1), "tenant": "acme", "dataset_id": "d", "constitution": CONSTITUTION}
    return TrainAdapter.model_validate(fields | changes)


def assignment(session_id: str = "s", **changes: Any) -> TrainingAssignment:
    fields = {
        "session_id": session_id,
        "tenant": "acme",
        "desired": Desired.TRAINED,
        "request": request(),
        "scope": "acme/default",
        "mechanism": PLAN.mechanism(),
        "steps": PLAN.steps,
        "epsilon_planned": PLAN.epsilon_planned,
    }
    return TrainingAssignment.model_validate(fields | changes)
