import math
import multiprocessing
from multiprocessing.connection import Connection

import pytest
import torch
from torch import Tensor

from ctrainer.trainer.randomness import Randomness

COUNT = 400_000
PLACES = 1 << 15
"""Normal numbers of one batch of key stream; numbers a quarter of it apart share their draws."""


@pytest.fixture(scope="module")
def drawn() -> Tensor:
    return Randomness.unsafe_from_seed(11).normal(COUNT)


def test_normal_numbers_have_the_moments_of_a_normal(drawn: Tensor) -> None:
    assert abs(float(drawn.mean())) < 5 / math.sqrt(COUNT)
    assert float(drawn.var()) == pytest.approx(1.0, abs=5 * math.sqrt(2 / COUNT))
    assert float((drawn**3).mean()) == pytest.approx(0.0, abs=5 * math.sqrt(15 / COUNT))
    assert float((drawn**4).mean()) == pytest.approx(3.0, abs=5 * math.sqrt(96 / COUNT))


def kolmogorov_smirnov(drawn: Tensor) -> float:
    """Return the largest distance to the normal distribution, times the root of the count."""
    expected = torch.special.ndtr(drawn.sort().values)
    observed = torch.arange(1, len(drawn) + 1, dtype=torch.float64) / len(drawn)
    distance = torch.maximum((expected - observed).abs(), (expected - observed + 1 / len(drawn)).abs())
    return float(distance.max()) * math.sqrt(len(drawn))


def test_normal_numbers_have_the_distribution_of_a_normal(drawn: Tensor) -> None:
    # Above 1.95 once in a thousand.
    assert kolmogorov_smirnov(drawn) < 1.95
    # So have sums of those that share their draws: 32,768 at a time, in four rows.
    rows = drawn[: COUNT // PLACES * PLACES].view(-1, 4, PLACES // 4)
    assert kolmogorov_smirnov(rows.sum(1).flatten() / 2) < 1.95
    assert kolmogorov_smirnov((rows[:, 0] - rows[:, 3]).flatten() / math.sqrt(2)) < 1.95


def test_the_test_of_the_distribution_would_see_noise_that_is_a_little_too_small(drawn: Tensor) -> None:
    assert kolmogorov_smirnov(0.985 * drawn) > 1.95


@pytest.mark.parametrize("limit", [2.0, 3.0, 4.0])
def test_tails_are_as_heavy_as_those_of_a_normal(drawn: Tensor, limit: float) -> None:
    for tail in (drawn, -drawn):
        expected = COUNT * math.erfc(limit / math.sqrt(2)) / 2
        assert float((tail > limit).sum()) == pytest.approx(expected, abs=5 * math.sqrt(expected))


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 7, 64, PLACES // 4, PLACES // 2, 3 * PLACES // 4, PLACES])
def test_normal_numbers_and_their_squares_are_not_correlated(drawn: Tensor, lag: int) -> None:
    earlier, later = drawn[:-lag], drawn[lag:]
    assert abs(float((earlier * later).mean())) < 5 / math.sqrt(COUNT - lag)
    assert abs(float(((earlier**2 - 1) * (later**2 - 1)).mean())) < 5 * 2 / math.sqrt(COUNT - lag)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, PLACES - 1, PLACES + 1])
def test_any_count_is_drawn_in_full(count: int) -> None:
    drawn = Randomness.unsafe_from_seed(3).normal(count)
    assert len(drawn) == count
    assert bool(torch.isfinite(drawn).all())
    assert len(set(drawn.tolist())) == count


def test_the_variance_of_short_draws_is_one() -> None:
    randomness = Randomness.unsafe_from_seed(16)
    drawn = torch.cat([randomness.normal(3) for _ in range(5_000)])
    assert float(drawn.var()) == pytest.approx(1.0, abs=5 * math.sqrt(2 / len(drawn)))


def test_uniform_numbers_are_never_zero_and_spread_evenly() -> None:
    drawn = Randomness.unsafe_from_seed(13).uniform(100_000)
    assert 0.0 < float(drawn.min()) < 1e-3
    assert 1 - 1e-3 < float(drawn.max()) <= 1.0
    counts = torch.histc(drawn, bins=10, min=0, max=1)
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 27.9


def test_uniform_numbers_use_53_bits() -> None:
    scaled = Randomness.unsafe_from_seed(17).uniform(1_000) * 2.0**53
    assert bool((scaled == scaled.round()).all())
    assert 0.4 < float((scaled % 2).mean()) < 0.6


def test_a_poisson_sample_takes_each_record_with_the_given_probability() -> None:
    randomness = Randomness.unsafe_from_seed(14)
    sizes = torch.tensor([float(len(randomness.poisson_sample(400, 0.015))) for _ in range(2_000)])
    assert float(sizes.mean()) == pytest.approx(6.0, abs=5 * math.sqrt(6.0 * 0.985 / 2_000))
    assert float(sizes.var()) == pytest.approx(6.0 * 0.985, rel=0.2)


def test_a_poisson_sample_may_be_empty_or_everything() -> None:
    randomness = Randomness.unsafe_from_seed(15)
    assert randomness.poisson_sample(50, 1.0) == list(range(50))
    assert randomness.poisson_sample(50, 1e-12) == []


def test_a_seeded_stream_goes_on_from_its_position() -> None:
    whole = Randomness.unsafe_from_seed(1)
    whole.normal(1_000)
    resumed = Randomness.unsafe_from_seed(1, position=whole.position)
    assert torch.equal(resumed.normal(70), whole.normal(70))


def test_no_draw_repeats_an_earlier_one() -> None:
    randomness = Randomness.unsafe_from_seed(1)
    drawn = torch.cat([randomness.uniform(count) for count in (1, 3, 64, 300_000)])
    assert len(set(drawn.tolist())) == len(drawn)


def test_no_step_repeats_the_noise_of_another() -> None:
    randomness = Randomness.secure()
    steps = torch.cat([randomness.normal(1_000) for _ in range(50)])
    assert len(set(steps.tolist())) == len(steps)


def _draw_into(pipe: Connection, randomness: Randomness) -> None:
    pipe.send(randomness.normal(100).tolist())


def drawn_in_a_fork(randomness: Randomness) -> list[float]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_draw_into, args=(theirs, randomness))
    process.start()
    drawn: list[float] = ours.recv()
    process.join()
    return drawn


def test_no_process_repeats_the_noise_of_the_one_it_was_forked_from() -> None:
    randomness = Randomness.secure()
    forks = drawn_in_a_fork(randomness) + drawn_in_a_fork(randomness) + randomness.normal(100).tolist()
    assert len(set(forks)) == 300


def test_secure_streams_differ_and_are_marked_secure() -> None:
    one, other = Randomness.secure(), Randomness.secure()
    assert not torch.equal(one.normal(16), other.normal(16))
    assert not one.unsafe_seeded
    assert Randomness.unsafe_from_seed(1).unsafe_seeded


def test_the_key_is_not_shown() -> None:
    randomness = Randomness.secure()
    assert str(randomness.key) not in repr(randomness)
