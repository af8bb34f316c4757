import pytest

from ctrainer.trainer.accounting import rdp_of_step
from ctrainer.trainer.ledger import Granted, LedgerState, reserve
from ctrainer.trainer.plan import Fault, PrivacyPlan, make_plan


def plan_for(
    *, epsilon: float = 8.0, delta: float = 1e-5, records: int = 400, batch: float = 6.0, steps: int = 40
) -> PrivacyPlan | tuple[Fault, ...]:
    return make_plan(
        epsilon=epsilon, delta=delta, records=records, expected_batch_size=batch, steps=steps, clip_norm=1.0
    )


@pytest.mark.parametrize(
    ("epsilon", "records", "batch", "steps"), [(8, 400, 6, 40), (1, 5_000, 64, 200), (3, 60, 60, 5)]
)
def test_the_ledger_grants_every_block_of_a_plan(epsilon: float, records: int, batch: float, steps: int) -> None:
    plan = plan_for(epsilon=epsilon, records=records, batch=batch, steps=steps)
    assert isinstance(plan, PrivacyPlan)
    state = LedgerState()
    for step in range(plan.steps):
        state, answer = reserve(
            state,
            reservation_id=str(step),
            fingerprint="plan",
            step_rdp=rdp_of_step(plan.sampling_rate, plan.noise_multiplier),
            steps=1,
            epsilon_ceiling=plan.epsilon_ceiling,
            delta=plan.delta,
        )
        assert isinstance(answer, Granted)
    assert answer.epsilon == pytest.approx(plan.epsilon_planned)


def test_a_plan_spends_nearly_what_it_may() -> None:
    plan = plan_for()
    assert isinstance(plan, PrivacyPlan)
    assert 0.94 * 8 < plan.epsilon_planned <= 0.949 * 8


def test_all_faults_are_told_at_once() -> None:
    faults = plan_for(epsilon=9.0, delta=1e-3, batch=500.0)
    assert isinstance(faults, tuple)
    assert {fault.reason for fault in faults} == {"epsilon-over-ceiling", "delta-over-ceiling", "batch-over-dataset"}
    assert all(fault.acceptable for fault in faults)


def test_delta_must_shrink_with_the_dataset() -> None:
    faults = plan_for(delta=1e-5, records=1_000_000)
    assert isinstance(faults, tuple)
    assert [fault.reason for fault in faults] == ["delta-over-ceiling"]


def test_a_tiny_dataset_is_refused() -> None:
    faults = plan_for(records=49)
    assert isinstance(faults, tuple)
    assert [fault.reason for fault in faults] == ["too-few-records"]


def test_an_epsilon_that_no_noise_reaches_is_refused() -> None:
    faults = plan_for(epsilon=1e-6)
    assert isinstance(faults, tuple)
    assert [fault.reason for fault in faults] == ["epsilon-out-of-reach"]
