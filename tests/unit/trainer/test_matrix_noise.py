import pytest
import torch

from ctrainer.trainer.matrix_noise import MatrixNoise, column_norm, prefix_error, square_root_coefficients


@pytest.mark.parametrize(
    ("steps", "independent", "correlated"), [(39, 4.47, 2.07), (117, 7.68, 2.42), (390, 13.98, 2.80)]
)
def test_correlated_noise_leaves_the_published_error_in_prefix_sums(
    steps: int, independent: float, correlated: float
) -> None:
    assert prefix_error(bands=1, steps=steps) == pytest.approx(independent, abs=0.01)
    assert prefix_error(bands=steps, steps=steps) == pytest.approx(correlated, abs=0.01)


@pytest.mark.parametrize("bands", [1, 3, 8])
def test_the_factor_undoes_the_correlation(bands: int) -> None:
    steps, numbers = 12, 5
    draws = torch.randn(steps, numbers, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    rows = iter(draws)
    noise = MatrixNoise(bands=bands, steps=steps, scale=0.7, draw=lambda: next(rows))
    correlated = torch.stack([noise.next() for _ in range(steps)])
    coefficients = square_root_coefficients(bands)
    factor = torch.zeros(steps, steps, dtype=torch.float64)
    for row in range(steps):
        for back in range(min(bands, row + 1)):
            factor[row, row - back] = coefficients[back]
    norm = float(torch.linalg.vector_norm(factor, dim=0).max())
    assert norm == pytest.approx(column_norm(coefficients, steps=steps))
    assert torch.allclose(factor @ correlated, 0.7 * norm * draws)
    assert len(noise.history) == bands - 1


@pytest.mark.parametrize(("bands", "scale"), [(0, 1.0), (13, 1.0), (2, 0.0)])
def test_noise_that_is_not_defined_is_refused(bands: int, scale: float) -> None:
    with pytest.raises(ValueError, match="got"):
        MatrixNoise(bands=bands, steps=12, scale=scale, draw=lambda: torch.zeros(1))
