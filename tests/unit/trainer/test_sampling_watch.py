import math
from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import binom

from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.sampling_watch import (
    SamplingWatch,
    log_chance_of_count,
    log_chance_of_no_repeat,
    log_chance_of_one_size,
)

RECORDS, RATE, STEPS = 400, 0.015, 40


def watch(*, false_alarm: float = 1e-12) -> SamplingWatch:
    return SamplingWatch(rate=RATE, records=RECORDS, draws=STEPS, false_alarm=false_alarm)


def first_fault(batches: Iterator[list[int]]) -> str | None:
    watching = watch()
    return next((fault for _ in range(STEPS) if (fault := watching.fault(next(batches)))), None)


def poisson(rate: float, seed: int = 1) -> Iterator[list[int]]:
    randomness = Randomness.unsafe_from_seed(seed)
    while True:
        yield randomness.poisson_sample(RECORDS, rate)


def fixed_size() -> Iterator[list[int]]:
    random = Random(1)
    while True:
        yield random.sample(range(RECORDS), 6)


def shuffled_passes() -> Iterator[list[int]]:
    """Yield a shuffled dataset cut at random places, so that sizes vary as they should."""
    random, left = Random(1), list[int]()
    for batch in poisson(RATE):
        if len(left) < len(batch):
            left = random.sample(range(RECORDS), RECORDS)
        yield [left.pop() for _ in batch]


def test_poisson_samples_raise_no_alarm_even_where_alarms_are_cheap() -> None:
    for seed in range(50):
        watching, batches = watch(false_alarm=1e-3), poisson(RATE, seed)
        assert all(watching.fault(next(batches)) is None for _ in range(STEPS))


@pytest.mark.parametrize(
    ("batches", "fault"),
    [
        (lambda: poisson(2 * RATE), "rate"),
        (lambda: poisson(RATE / 3), "rate"),
        (fixed_size, "fixed size"),
        (shuffled_passes, "twice"),
        (lambda: iter([[1, 1]]), "twice"),
        (lambda: iter([[RECORDS]]), "not of the dataset"),
    ],
)
def test_another_sampler_shows_within_a_session(batches: Callable[[], Iterator[list[int]]], fault: str) -> None:
    assert fault in (first_fault(batches()) or "none")


@pytest.mark.parametrize(("trials", "rate"), [(50, 0.1), (300, 0.015), (30, 0.5)])
def test_the_chance_of_a_count_is_bounded_from_above(trials: int, rate: float) -> None:
    bounds = np.array([log_chance_of_count(count, trials, rate) for count in range(trials + 1)])
    exact = binom.logpmf(np.arange(trials + 1), trials, rate)
    for bound in bounds:
        assert logsumexp(exact[bounds <= bound]) <= bound + 1e-9


@pytest.mark.parametrize(("records", "rate"), [(20, 0.1), (400, 0.015), (10, 1.0)])
def test_the_chance_of_one_size_is_bounded_from_above(records: int, rate: float) -> None:
    exact = sum(binom.pmf(size, records, rate) ** 5 for size in range(records + 1))
    assert math.log(exact) <= log_chance_of_one_size(5, records, rate) + 1e-9


def test_the_chance_of_no_repeat_is_that_of_every_record_in_at_most_one_batch() -> None:
    exact = binom.cdf(1, 5, 0.1) ** 20
    assert log_chance_of_no_repeat(5, 20, 0.1) == pytest.approx(math.log(exact))
    assert log_chance_of_no_repeat(2, 20, 1.0) == -math.inf
