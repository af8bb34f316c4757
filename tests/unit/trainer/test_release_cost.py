from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.schemas.privacy import Adjacency, Mechanism, PrivacyMode, PrivacyUnit
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, rdp_of_step
from ctrainer.trainer.release_cost import release_rdp, releases, unaccounted

MECHANISM = Mechanism(sampling_rate=0.02, noise_multiplier=0.8, clip_norm=1.0, expected_batch_size=8.0)
BLOCKS = st.lists(st.builds(lambda first, size: range(first, first + size), st.integers(0, 30), st.integers(0, 9)))


def mechanism(**changes: Any) -> Mechanism:
    return MECHANISM.model_copy(update=changes)


@given(blocks=BLOCKS)
def test_a_pass_costs_as_many_releases_as_its_most_frequent_step_whatever_the_order(blocks: list[range]) -> None:
    charged = sum(releases(blocks[:place], block) for place, block in enumerate(blocks))
    often = [sum(step in block for block in blocks) for step in range(40)]
    assert charged == max(often)


@pytest.mark.parametrize("mode", [PrivacyMode.SINGLE_PASS, PrivacyMode.SINGLE_PASS_CORRELATED])
@pytest.mark.parametrize(("noise", "epsilon"), [(3.73, 1), (1.99, 2), (1.08, 4), (0.60, 8)])
def test_a_single_pass_costs_one_gaussian_release_however_small_its_batches(
    mode: PrivacyMode, noise: float, epsilon: float
) -> None:
    cost = release_rdp(mechanism(mode=mode.value, noise_multiplier=noise, sampling_rate=0.001))
    assert cost == rdp_of_step(1.0, noise)
    # The published needs are those of the exact Gaussian mechanism; RDP is an upper bound on it.
    assert epsilon - 0.02 <= epsilon_of(cost, 1e-5) <= 1.25 * epsilon
    assert exact_epsilon(noise) == pytest.approx(epsilon, rel=0.01)


def exact_epsilon(noise: float) -> float:
    import dp_accounting  # noqa: PLC0415 - seconds, for one test
    from dp_accounting import pld  # noqa: PLC0415 - as above

    accountant = pld.PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(dp_accounting.GaussianDpEvent(noise))
    return float(accountant.get_epsilon(1e-5))


def test_users_whose_records_are_drawn_cost_more_than_a_record_and_whole_users_cost_as_much() -> None:
    record = release_rdp(MECHANISM)
    user = {"unit": PrivacyUnit.USER}
    assert release_rdp(mechanism(**user, whole_users=True)) == record
    several = release_rdp(mechanism(**user, records_per_user=4))
    assert all(many >= one for many, one in zip(several, record, strict=True))
    assert epsilon_of(compose(NOTHING, several, 40), 1e-5) > epsilon_of(compose(NOTHING, record, 40), 1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "shuffled"},
        {"mode": "unsafe-non-private"},
        {"bands": 4},
        {"records_per_user": 2},
        {"whole_users": True},
        {"unit": PrivacyUnit.USER, "records_per_user": 2, "whole_users": True},
        {"unit": PrivacyUnit.USER, "records_per_user": 2, "mode": "single-pass"},
        {"adjacency": Adjacency.REPLACE_ONE},
    ],
)
def test_what_has_no_accounting_is_named_and_has_no_cost(changes: dict[str, Any]) -> None:
    assert "expected" in (unaccounted(mechanism(**changes)) or "")
    with pytest.raises(ValueError, match="expected"):
        release_rdp(mechanism(**changes))
