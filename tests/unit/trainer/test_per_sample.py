from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor

from ctrainer.trainer.errors import UnsupportedAdapterError
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.per_sample import PerSampleGradients, per_sample_gradients, sample_norms
from ctrainer.trainer.tokenization import EncodedExample, collate

Examples = Callable[[int], list[EncodedExample]]
TOLERANCE = 1e-5


def backward(model: Any, examples: Sequence[EncodedExample]) -> None:
    batch = collate(examples, pad_token_id=0)
    torch.autograd.backward(sample_losses(model, batch).sum())


def named_gradients(gradients: PerSampleGradients) -> dict[str, Tensor]:
    """Return what the last backward pass left, for each weight [samples, *shape of the weight]."""
    parts = gradients.per_weight([block.in_weight_order(block.take()) for block in gradients.blocks])
    return {factor.name: part for factor, part in zip(gradients.factors, parts, strict=True)}


def per_sample(model: Any, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
    with per_sample_gradients(model) as gradients:
        backward(model, examples)
        return named_gradients(gradients)


def one_by_one(model: Any, examples: Sequence[EncodedExample]) -> dict[str, Tensor]:
    rows: dict[str, list[Tensor]] = {}
    for example in examples:
        model.zero_grad()
        backward(model, [example])
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rows.setdefault(name, []).append(parameter.grad.clone())
    model.zero_grad()
    return {name: torch.stack(of_weight) for name, of_weight in rows.items()}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = TOLERANCE) -> None:
    """Every weight of every sample within a relative distance."""
    assert found.keys() == expected.keys()
    assert found
    for name, theirs in expected.items():
        for ours, reference in zip(found[name], theirs, strict=True):
            assert float((ours - reference).norm()) <= tolerance * float(reference.norm()), name


def clipped(gradients: PerSampleGradients, model: Any, rows: Sequence[EncodedExample], clip_norm: float) -> Tensor:
    backward(model, rows)
    return torch.cat(gradients.clipped_sum(clip_norm, samples=len(rows)).totals)


def test_gradients_equal_those_of_single_backward_passes(adapted: LanguageModel, examples: Examples) -> None:
    expected = one_by_one(adapted.model, examples(5))
    assert_near(per_sample(adapted.model, examples(5)), expected)


def test_gradients_equal_those_of_opacus(adapted: LanguageModel, examples: Examples) -> None:
    wrapped = GradSampleModule(adapted.model, loss_reduction="sum")
    backward(wrapped, examples(5))
    expected = {
        name.removeprefix("_module."): parameter.grad_sample.clone()
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad
    }
    wrapped.remove_hooks()
    assert_near(per_sample(adapted.model, examples(5)), expected)


@pytest.mark.parametrize("clip_norm", [1e-3, 0.1, 100.0])
def test_leaving_out_any_record_moves_the_sum_by_at_most_the_clip_norm(
    adapted: LanguageModel, examples: Examples, clip_norm: float
) -> None:
    rows = examples(6)
    with per_sample_gradients(adapted.model) as gradients:
        whole = clipped(gradients, adapted.model, rows, clip_norm)
        for left_out in range(len(rows)):
            rest = clipped(gradients, adapted.model, rows[:left_out] + rows[left_out + 1 :], clip_norm)
            assert float((whole - rest).norm()) <= clip_norm * (1 + TOLERANCE)


def test_gradients_within_the_clip_norm_are_not_scaled(adapted: LanguageModel, examples: Examples) -> None:
    expected = {name: rows.sum(0, keepdim=True) for name, rows in one_by_one(adapted.model, examples(4)).items()}
    with per_sample_gradients(adapted.model) as gradients:
        backward(adapted.model, examples(4))
        sums = gradients.per_weight(gradients.clipped_sum(1e6, samples=4).totals)
        found = {factor.name: total[None] for factor, total in zip(gradients.factors, sums, strict=True)}
    assert_near(found, expected)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_record_with_a_gradient_that_is_not_finite_counts_as_zero(
    adapted: LanguageModel, examples: Examples, poison: float
) -> None:
    with per_sample_gradients(adapted.model) as gradients:
        clean = clipped(gradients, adapted.model, examples(3), 0.1)
        backward(adapted.model, examples(4))
        buffer = gradients.blocks[0].buffer
        assert buffer is not None
        buffer[3, 5] = poison
        found = gradients.clipped_sum(0.1, samples=4)
    assert found.not_finite == 1
    assert float((torch.cat(found.totals) - clean).norm()) <= TOLERANCE * float(clean.norm())


def test_a_batch_of_nothing_finite_sums_to_zero(adapted: LanguageModel, examples: Examples) -> None:
    with per_sample_gradients(adapted.model) as gradients:
        backward(adapted.model, examples(2))
        buffer = gradients.blocks[0].buffer
        assert buffer is not None
        buffer.fill_(float("nan"))
        found = gradients.clipped_sum(0.1, samples=2)
    assert found.not_finite == 2
    assert not any(bool(total.any()) for total in found.totals)


def test_a_gradient_of_zero_stays_zero(adapted: LanguageModel, examples: Examples) -> None:
    with per_sample_gradients(adapted.model) as gradients:
        backward(adapted.model, examples(2))
        for block in gradients.blocks:
            assert block.buffer is not None
            block.buffer[1] = 0.0
        found = gradients.clipped_sum(1e-6, samples=2)
    assert found.not_finite == 0
    assert float(torch.cat(found.totals).norm()) == pytest.approx(1e-6, rel=TOLERANCE)


def test_gradients_are_forgotten_after_the_sum(adapted: LanguageModel, examples: Examples) -> None:
    with per_sample_gradients(adapted.model) as gradients:
        backward(adapted.model, examples(2))
        gradients.clipped_sum(1.0, samples=2)
        assert all(block.buffer is None for block in gradients.blocks)
        with pytest.raises(UnsupportedAdapterError, match="did not use"):
            gradients.clipped_sum(1.0, samples=2)


def test_another_number_of_samples_than_that_of_the_batch_is_refused(
    adapted: LanguageModel, examples: Examples
) -> None:
    with per_sample_gradients(adapted.model) as gradients:
        backward(adapted.model, examples(2))
        with pytest.raises(UnsupportedAdapterError, match="got 2 samples, expected 3"):
            gradients.clipped_sum(1.0, samples=3)


def test_a_detached_model_trains_by_plain_autograd(adapted: LanguageModel, examples: Examples) -> None:
    expected = one_by_one(adapted.model, examples(1))
    per_sample(adapted.model, examples(2))
    assert_near(one_by_one(adapted.model, examples(1)), expected, tolerance=0.0)


def test_norms_span_all_blocks() -> None:
    gradients = [torch.full((2, 12), 2.0), torch.full((2, 4), 1.0)]
    assert sample_norms(gradients).tolist() == pytest.approx([52.0**0.5] * 2)
