import math

import pytest
import torch

from ctrainer.trainer.randomness import Randomness


def test_normal_numbers_have_the_moments_and_the_distribution_of_a_normal() -> None:
    count = 400_000
    drawn = Randomness.unsafe_from_seed(11).normal(count)
    assert abs(float(drawn.mean())) < 5 / math.sqrt(count)
    assert float(drawn.var()) == pytest.approx(1.0, abs=5 * math.sqrt(2 / count))
    assert float((drawn**4).mean()) == pytest.approx(3.0, abs=5 * math.sqrt(96 / count))
    expected = torch.special.ndtr(drawn.sort().values)
    observed = torch.arange(1, count + 1, dtype=torch.float64) / count
    # Kolmogorov and Smirnov: above 1.95 / sqrt(n) once in a thousand.
    assert float((expected - observed).abs().max()) < 1.95 / math.sqrt(count)


def test_successive_normal_numbers_are_not_correlated() -> None:
    count = 400_000
    drawn = Randomness.unsafe_from_seed(12).normal(count)
    assert abs(float((drawn[1:] * drawn[:-1]).mean())) < 5 / math.sqrt(count)


def test_uniform_numbers_are_never_zero_and_spread_evenly() -> None:
    drawn = Randomness.unsafe_from_seed(13).uniform(100_000)
    assert 0.0 < float(drawn.min()) < 1e-3
    assert 1 - 1e-3 < float(drawn.max()) <= 1.0
    counts = torch.histc(drawn, bins=10, min=0, max=1)
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 27.9


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


def test_secure_streams_differ_and_are_marked_secure() -> None:
    one, other = Randomness.secure(), Randomness.secure()
    assert not torch.equal(one.normal(16), other.normal(16))
    assert not one.unsafe_seeded
    assert Randomness.unsafe_from_seed(1).unsafe_seeded
