from collections.abc import Iterator

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from ctrainer.trainer.noise_watch import NoiseWatch, chi_square_bounds
from ctrainer.trainer.randomness import Randomness


def watch(*, draws: int = 100, false_alarm: float = 1e-12) -> NoiseWatch:
    return NoiseWatch(scale=0.5, draws=draws, false_alarm=false_alarm)


def draws(factor: float = 1.0, *, seed: int = 1) -> Iterator[list[Tensor]]:
    """Yield the noise of a plan with standard deviation 0.5, times a factor, in two blocks."""
    randomness = Randomness.unsafe_from_seed(seed)
    while True:
        yield [randomness.normal(size).mul_(0.5 * factor) for size in (600, 400)]


@pytest.mark.parametrize("freedom", [1, 7, 300, 100_000])
@pytest.mark.parametrize("probability", [0.1, 1e-6, 1e-12])
def test_the_bounds_are_left_no_more_often_than_stated(freedom: int, probability: float) -> None:
    low, high = chi_square_bounds(freedom, probability)
    assert chi2.cdf(low, freedom) + chi2.sf(high, freedom) <= probability


def test_sound_noise_raises_no_alarm_even_where_alarms_are_cheap() -> None:
    for seed in range(20):
        watching, noise = watch(false_alarm=1e-3), draws(seed=seed)
        assert all(watching.fault(next(noise)) is None for _ in range(100))


@pytest.mark.parametrize("factor", [0.0, 0.5, 0.75, 1.5])
def test_noise_of_another_width_shows_in_the_first_step(factor: float) -> None:
    assert watch().fault(next(draws(factor))) == "its variance is not that of the plan"


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_noise_of_a_slightly_other_width_shows_in_time(factor: float) -> None:
    watching, noise = watch(), draws(factor)
    assert watching.fault(next(noise)) is None
    assert any(watching.fault(next(noise)) for _ in range(99))


def test_one_weight_without_noise_shows_beside_many_with_noise() -> None:
    randomness = Randomness.unsafe_from_seed(1)
    large = randomness.normal(200_000).mul_(0.5)
    assert watch().fault([large, torch.zeros(300, dtype=torch.float64)]) is not None


def test_noise_that_is_used_again_shows_however_much_later() -> None:
    watching, noise = watch(), draws()
    old = next(noise)
    assert watching.fault(old) is None
    assert all(watching.fault(next(noise)) is None for _ in range(20))
    assert watching.fault(old) == "it was drawn before"
