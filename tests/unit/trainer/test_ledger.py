import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, rdp_of_step
from ctrainer.trainer.ledger import Granted, LedgerState, Refused, reserve

STEP = rdp_of_step(0.015, 0.8)
BLOCKS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 400)), max_size=25)


def ask(
    state: LedgerState, name: str, steps: int, *, fingerprint: str = "", ceiling: float = 8.0
) -> tuple[LedgerState, Granted | Refused]:
    return reserve(
        state,
        reservation_id=name,
        fingerprint=fingerprint or str(steps),
        step_rdp=STEP,
        steps=steps,
        epsilon_ceiling=ceiling,
        delta=1e-5,
    )


@given(BLOCKS, st.floats(0.5, 8.0))
def test_no_history_spends_more_than_95_percent(blocks: list[tuple[int, int]], ceiling: float) -> None:
    state = LedgerState()
    for name, steps in blocks:
        state, _ = ask(state, str(name), steps, ceiling=ceiling)
        assert epsilon_of(state.rdp, 1e-5) <= 0.95 * ceiling


@given(BLOCKS)
def test_the_spend_is_the_sum_of_all_grants_and_never_shrinks(blocks: list[tuple[int, int]]) -> None:
    state = LedgerState()
    for name, steps in blocks:
        after, _ = ask(state, str(name), steps)
        assert all(new >= old for new, old in zip(after.rdp, state.rdp, strict=True))
        state = after
    expected = compose(NOTHING, STEP, sum(grant.steps for grant in state.grants.values()))
    assert all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(state.rdp, expected, strict=True))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_crossing_90_percent_alerts_exactly_once(steps: list[int]) -> None:
    state, alerts = LedgerState(), 0
    for number, count in enumerate(steps):
        state, answer = ask(state, str(number), count, ceiling=2.0)
        alerts += isinstance(answer, Granted) and answer.alert
    assert alerts == (epsilon_of(state.rdp, 1e-5) >= 0.9 * 2.0)


def test_asking_again_is_answered_again_and_not_charged() -> None:
    once, first = ask(LedgerState(), "a", 8)
    twice, second = ask(once, "a", 8)
    assert isinstance(first, Granted)
    assert isinstance(second, Granted)
    assert second.repeated
    assert not first.repeated
    assert second.epsilon == first.epsilon
    assert twice == once


@given(st.integers(-1_000, 0), BLOCKS)
def test_a_reservation_that_adds_nothing_is_refused(steps: int, blocks: list[tuple[int, int]]) -> None:
    state = LedgerState()
    for name, count in blocks:
        state, _ = ask(state, str(name), count)
    after, answer = ask(state, "new", steps)
    assert isinstance(answer, Refused)
    assert answer.reason == "wrong-request"
    assert after.rdp == state.rdp


@pytest.mark.parametrize("value", [math.nan, -0.1])
def test_a_step_of_undefined_or_negative_cost_is_refused(value: float) -> None:
    _, answer = reserve(
        LedgerState(),
        reservation_id="a",
        fingerprint="a",
        step_rdp=(value, *STEP[1:]),
        steps=1,
        epsilon_ceiling=8.0,
        delta=1e-5,
    )
    assert isinstance(answer, Refused)
    assert answer.reason == "wrong-request"


def test_another_request_under_a_known_id_is_refused() -> None:
    state, _ = ask(LedgerState(), "a", 8)
    after, answer = ask(state, "a", 8, fingerprint="other noise")
    assert isinstance(answer, Refused)
    assert answer.reason == "reservation-conflict"
    assert after == state


@given(st.integers(0, 500))
def test_the_acceptable_steps_of_a_refusal_are_granted_and_one_more_is_not(spent: int) -> None:
    state = LedgerState()
    if spent:
        state, _ = ask(state, "before", spent)
    state, refused = ask(state, "too much", 100_000)
    assert isinstance(refused, Refused)
    assert refused.reason == "budget-exhausted"
    _, over = ask(state, "over", refused.acceptable_steps + 1)
    assert isinstance(over, Refused)
    if refused.acceptable_steps:
        _, granted = ask(state, "fits", refused.acceptable_steps)
        assert isinstance(granted, Granted)


def test_a_refusal_charges_nothing() -> None:
    state, _ = ask(LedgerState(), "a", 8)
    after, _ = ask(state, "b", 100_000)
    assert after.rdp == state.rdp
    assert "b" not in after.grants
