import pytest
import torch
from torch import Tensor, nn

from ctrainer.trainer.gradient_block import Factor, GradientBlock
from ctrainer.trainer.matrix_noise import column_norm, square_root_coefficients
from ctrainer.trainer.noise import CorrelatedNoise, IndependentNoise, NoNoise
from ctrainer.trainer.randomness import Randomness

STEPS, BANDS = 9, 4


def blocks() -> list[GradientBlock]:
    weights = [nn.Parameter(torch.zeros(3, 5)), nn.Parameter(torch.zeros(2, 7))]
    return [GradientBlock([Factor(name="w", weight=weight, outer=False)]) for weight in weights]


def correlated(randomness: Randomness, *, scale: float = 0.7) -> CorrelatedNoise:
    return CorrelatedNoise(blocks=blocks(), scale=scale, bands=BANDS, steps=STEPS, randomness=randomness)


def steps_of(noise: CorrelatedNoise, count: int) -> list[Tensor]:
    return [torch.cat(noise.next()) for _ in range(count)]


@pytest.mark.parametrize("stop", range(STEPS))
def test_seeded_noise_that_goes_on_elsewhere_is_the_same_bit_for_bit(stop: int) -> None:
    whole = steps_of(correlated(Randomness.unsafe_from_seed(5)), STEPS)
    first = correlated(Randomness.unsafe_from_seed(5))
    before = steps_of(first, stop)
    second = correlated(Randomness.unsafe_from_seed(5, position=first.randomness.position))
    second.go_on(first.drawn())
    assert all(torch.equal(a, b) for a, b in zip(whole, before + steps_of(second, STEPS - stop), strict=True))
    assert second.drawn()[0].key is None


def test_secure_noise_goes_on_with_the_same_earlier_noise_and_fresh_noise_from_there_on() -> None:
    first = correlated(Randomness.secure())
    before = steps_of(first, 5)
    second, third = correlated(Randomness.secure()), correlated(Randomness.secure())
    for successor in (second, third):
        successor.go_on(first.drawn())
    independent = []
    for successor in (second, third):
        after = steps_of(successor, STEPS - 5)
        # Undo the correlation: what is left must be independent draws, also across the change of processes.
        independent.append(uncorrelated(before + after))
    assert torch.equal(independent[0][:5], independent[1][:5])
    assert not torch.isclose(independent[0][5:], independent[1][5:]).any()
    assert [stretch.steps for stretch in second.drawn()] == [5, STEPS - 5]
    fourth = correlated(Randomness.secure())
    fourth.go_on(second.drawn())
    assert all(torch.equal(a, b) for a, b in zip(fourth.matrix.history, second.matrix.history, strict=True))


def uncorrelated(noise: list[Tensor]) -> Tensor:
    coefficients = square_root_coefficients(BANDS)
    rows = [
        sum((c * noise[step - back] for back, c in enumerate(coefficients) if back <= step), torch.zeros(1))
        for step in range(len(noise))
    ]
    return torch.stack(rows)


def test_the_noise_that_is_correlated_has_the_size_of_the_plan_times_the_norm_of_a_column() -> None:
    large = CorrelatedNoise(
        blocks=[GradientBlock([Factor(name="w", weight=nn.Parameter(torch.zeros(100, 200)), outer=False)])],
        scale=0.7,
        bands=BANDS,
        steps=STEPS,
        randomness=Randomness.unsafe_from_seed(1),
    )
    rows = uncorrelated([torch.cat(large.next()) for _ in range(STEPS)])
    expected = 0.7 * column_norm(square_root_coefficients(BANDS), steps=STEPS)
    assert float(rows.std()) == pytest.approx(expected, rel=0.01)
    products = rows @ rows.T / rows.shape[1]
    assert float((products - torch.diag(products.diag())).abs().max()) < 0.03 * expected**2


def test_after_steps_that_were_passed_over_a_new_sequence_begins() -> None:
    noise = correlated(Randomness.unsafe_from_seed(5))
    steps_of(noise, 3)
    noise.go_on([])
    assert noise.drawn() == []
    assert noise.matrix.history == []


def test_other_noise_has_nothing_to_remember() -> None:
    independent = IndependentNoise(blocks=blocks(), scale=2.0, randomness=Randomness.secure())
    assert not torch.equal(torch.cat(independent.next()), torch.cat(independent.next()))
    assert independent.drawn() == NoNoise(blocks=blocks()).drawn() == []
    assert [part.tolist() for part in NoNoise(blocks=blocks()).next()] == [[0.0] * 15, [0.0] * 14]
