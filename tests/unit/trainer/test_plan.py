import math
from typing import Any

import pytest

from ctrainer.schemas.privacy import Adjacency, PrivacyMode, PrivacyUnit
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, prv_epsilon, rdp_of_step
from ctrainer.trainer.ledger import Granted, LedgerState, Refused, reserve
from ctrainer.trainer.plan import Fault, PrivacyPlan, RecordOrder, make_plan
from ctrainer.trainer.user_accounting import user_rdp_of_step


def plan_for(
    *,
    epsilon: float = 8.0,
    delta: float = 1e-5,
    records: int = 400,
    batch: float = 6.0,
    steps: int = 40,
    clip_norm: float = 1.0,
    **options: Any,
) -> PrivacyPlan | tuple[Fault, ...]:
    return make_plan(
        epsilon=epsilon,
        delta=delta,
        records=records,
        expected_batch_size=batch,
        steps=steps,
        clip_norm=clip_norm,
        **options,
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
    assert plan.epsilon_with_spares is not None
    assert 0.94 * 8 < plan.epsilon_with_spares <= 0.949 * 8
    assert plan.epsilon_planned < plan.epsilon_with_spares


def granted_blocks(plan: PrivacyPlan, blocks: int) -> list[bool]:
    state, answers = LedgerState(), []
    for block in range(blocks):
        state, answer = reserve(
            state,
            reservation_id=str(block),
            fingerprint="plan",
            step_rdp=rdp_of_step(plan.sampling_rate, plan.noise_multiplier),
            steps=8,
            epsilon_ceiling=plan.epsilon_ceiling,
            delta=plan.delta,
        )
        answers.append(isinstance(answer, Granted))
    return answers


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_a_session_whose_crashes_take_no_more_than_the_spare_blocks_finishes(spare: int) -> None:
    plan = plan_for(spare_blocks=spare)
    assert isinstance(plan, PrivacyPlan)
    assert plan.spare_steps == 8 * spare
    assert all(granted_blocks(plan, plan.steps // 8 + spare))


def test_a_session_survives_a_crash_that_takes_the_running_block_and_the_one_reserved_ahead() -> None:
    plan = plan_for()
    assert isinstance(plan, PrivacyPlan)
    blocks = plan.steps // 8
    running, ahead, again = 1, 1, blocks
    assert all(granted_blocks(plan, running + ahead + again))


def test_the_last_permitted_step_is_granted_and_the_next_one_is_not() -> None:
    plan = plan_for(steps=200)
    assert isinstance(plan, PrivacyPlan)
    assert plan.last_permitted_step is not None
    assert plan.last_permitted_step >= plan.steps + plan.spare_steps
    for steps, kind in ((plan.last_permitted_step, Granted), (plan.last_permitted_step + 1, Refused)):
        _, answer = reserve(
            LedgerState(),
            reservation_id="all",
            fingerprint="plan",
            step_rdp=rdp_of_step(plan.sampling_rate, plan.noise_multiplier),
            steps=steps,
            epsilon_ceiling=plan.epsilon_ceiling,
            delta=plan.delta,
        )
        assert isinstance(answer, kind)


@pytest.mark.parametrize(
    ("rate", "steps", "noise", "rdp", "prv"),
    [(0.0256, 117, 0.6, 8.670, 7.307), (0.1024, 29, 1.0, 4.890, 4.224), (0.01024, 292, 0.8, 2.658, 2.062)],
)
def test_rdp_is_above_prv_and_prv_is_the_loss_distribution_of_another_library(
    rate: float, steps: int, noise: float, rdp: float, prv: float
) -> None:
    ours = prv_epsilon(sampling_rate=rate, noise_multiplier=noise, steps=steps, delta=1e-5)
    exact = pld_epsilon(rate=rate, noise=noise, steps=steps)
    assert epsilon_of(compose(NOTHING, rdp_of_step(rate, noise), steps), 1e-5) == pytest.approx(rdp, abs=2e-3)
    assert ours == pytest.approx(prv, abs=2e-3)
    assert exact <= ours <= exact + 0.012


def pld_epsilon(*, rate: float, noise: float, steps: int) -> float:
    import dp_accounting  # noqa: PLC0415 - seconds, for one test
    from dp_accounting import pld  # noqa: PLC0415 - as above

    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    accountant = pld.PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(event, steps)
    return float(accountant.get_epsilon(1e-5))


def test_one_record_a_user_costs_what_a_record_costs_and_more_cost_more() -> None:
    record = compose(NOTHING, rdp_of_step(0.01024, 0.8), 292)
    epsilons = [
        epsilon_of(compose(NOTHING, user_rdp_of_step(0.01024, 0.8, records_per_user=count), 292), 1e-5)
        for count in (1, 2, 4)
    ]
    assert epsilons[0] == pytest.approx(epsilon_of(record, 1e-5), rel=1e-6)
    assert epsilons == sorted(epsilons)
    # The tight mixture-of-Gaussians loss distribution gives 8.70 for 4 records; RDP is an upper bound on it.
    assert 8.70 <= epsilons[2] <= 1.35 * 8.70


def test_users_with_several_records_get_more_noise() -> None:
    single = plan_for(unit=PrivacyUnit.USER)
    several = plan_for(unit=PrivacyUnit.USER, records_per_user=3)
    assert isinstance(single, PrivacyPlan)
    assert isinstance(several, PrivacyPlan)
    assert several.noise_multiplier > single.noise_multiplier
    assert several.epsilon_planned <= 0.95 * 8


def test_a_single_pass_costs_one_release_without_amplification() -> None:
    plan = plan_for(mode=PrivacyMode.SINGLE_PASS, order=RecordOrder.ARRIVAL)
    assert isinstance(plan, PrivacyPlan)
    assert plan.epsilon_planned == epsilon_of(rdp_of_step(1.0, plan.noise_multiplier), 1e-5)
    assert plan.noise_multiplier > 0.6


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        (PrivacyMode.SEALED_POISSON, RecordOrder.SEALED),
        (PrivacyMode.SINGLE_PASS, RecordOrder.SEALED),
        (PrivacyMode.SINGLE_PASS, RecordOrder.ARRIVAL),
        (PrivacyMode.SINGLE_PASS_CORRELATED, RecordOrder.SEALED),
        (PrivacyMode.SINGLE_PASS_CORRELATED, RecordOrder.ARRIVAL),
    ],
)
def test_a_mode_fits_data_that_it_can_draw_from(mode: PrivacyMode, order: RecordOrder) -> None:
    assert isinstance(plan_for(mode=mode, order=order), PrivacyPlan)


def test_drawing_from_data_that_only_arrives_is_refused_as_its_amplification_would_not_be_there() -> None:
    faults = plan_for(mode=PrivacyMode.SEALED_POISSON, order=RecordOrder.ARRIVAL)
    assert isinstance(faults, tuple)
    assert [fault.reason for fault in faults] == ["mode-not-for-this-order"]
    assert "single-pass" in faults[0].acceptable


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"epsilon": 0.0}, "epsilon-not-positive"),
        ({"epsilon": math.nan}, "epsilon-not-positive"),
        ({"delta": 0.0}, "delta-not-positive"),
        ({"steps": 0}, "steps-not-positive"),
        ({"steps": -3}, "steps-not-positive"),
        ({"batch": 0.0}, "expected-batch-size-not-positive"),
        ({"clip_norm": -1.0}, "clip-norm-not-positive"),
        ({"clip_norm": math.inf}, "clip-norm-not-positive"),
        ({"records": 0}, "empty-dataset"),
        ({"spare_blocks": -1}, "spare-blocks-negative"),
        ({"records_per_user": 2}, "unsupported-user-unit"),
        ({"adjacency": Adjacency.REPLACE_ONE}, "unsupported-adjacency"),
        ({"steps": 100, "mode": PrivacyMode.SINGLE_PASS, "order": RecordOrder.ARRIVAL}, "pass-over-dataset"),
    ],
)
def test_a_number_that_no_plan_can_have_is_refused_by_its_name(changes: dict[str, Any], reason: str) -> None:
    faults = plan_for(**changes)
    assert isinstance(faults, tuple)
    assert reason in {fault.reason for fault in faults}


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


@pytest.mark.parametrize("count", [2, 5, 16])
@pytest.mark.parametrize("noise", [0.3, 0.8, 4.0])
def test_the_cost_of_a_user_is_finite_at_every_order_and_never_below_what_a_part_of_it_costs(
    count: int, noise: float
) -> None:
    user = user_rdp_of_step(0.05, noise, records_per_user=count)
    fewer = user_rdp_of_step(0.05, noise, records_per_user=count - 1)
    assert all(map(math.isfinite, user))
    assert all(more >= less * (1 - 1e-9) for more, less in zip(user, fewer, strict=True))


@pytest.mark.parametrize(("count", "exact"), [(1, 2.05), (4, 8.70), (16, 42.4)])
def test_the_cost_of_a_user_is_above_the_exact_loss_distribution(count: int, exact: float) -> None:
    spent = compose(NOTHING, user_rdp_of_step(0.01024, 0.8, records_per_user=count), 292)
    assert exact <= epsilon_of(spent, 1e-5) <= 1.4 * exact
