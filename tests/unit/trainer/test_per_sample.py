from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.errors import UnsupportedAdapterError
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.per_sample import PerSampleGradients, sample_norms
from ctrainer.trainer.tokenization import EncodedExample, collate

Examples = Callable[[int], list[EncodedExample]]


def backward(model: Any, examples: Sequence[EncodedExample]) -> None:
    batch = collate(examples, pad_token_id=0)
    torch.autograd.backward(sample_losses(model, batch).sum())


def per_sample(model: Any, examples: Sequence[EncodedExample]) -> list[Tensor]:
    covered = PerSampleGradients.attach(model)
    backward(model, examples)
    return [parameter.gradients for parameter in covered.parameters if parameter.gradients is not None]


def one_by_one(model: Any, examples: Sequence[EncodedExample]) -> list[Tensor]:
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rows = []
    for example in examples:
        model.zero_grad()
        backward(model, [example])
        rows.append([weight.grad.clone() for weight in weights])
    return [torch.stack(of_weight) for of_weight in zip(*rows, strict=True)]


def assert_near(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    assert len(found) == len(expected) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).norm()) <= 1e-5 * float(theirs.norm())


def test_gradients_equal_those_of_single_backward_passes(adapted: LanguageModel, examples: Examples) -> None:
    expected = one_by_one(adapted.model, examples(5))
    assert_near(per_sample(adapted.model, examples(5)), expected)


def test_gradients_equal_those_of_opacus(adapted: LanguageModel, examples: Examples) -> None:
    wrapped = GradSampleModule(adapted.model, loss_reduction="sum")
    backward(wrapped, examples(5))
    expected = [parameter.grad_sample.clone() for parameter in wrapped.parameters() if parameter.requires_grad]
    wrapped.remove_hooks()
    assert_near(per_sample(adapted.model, examples(5)), expected)


@pytest.mark.parametrize("clip_norm", [1e-3, 0.1, 100.0])
def test_leaving_out_any_record_moves_the_sum_by_at_most_the_clip_norm(
    adapted: LanguageModel, examples: Examples, clip_norm: float
) -> None:
    rows = examples(6)
    covered = PerSampleGradients.attach(adapted.model)

    def clipped(members: Sequence[EncodedExample]) -> Tensor:
        backward(adapted.model, members)
        return torch.cat([total.flatten() for total in covered.clipped_sum(clip_norm)])

    whole = clipped(rows)
    for left_out in range(len(rows)):
        rest = clipped(rows[:left_out] + rows[left_out + 1 :])
        assert float((whole - rest).norm()) <= clip_norm * (1 + 1e-4)


def test_gradients_within_the_clip_norm_are_not_scaled(adapted: LanguageModel, examples: Examples) -> None:
    expected = [total.sum(0) for total in one_by_one(adapted.model, examples(4))]
    covered = PerSampleGradients.attach(adapted.model)
    backward(adapted.model, examples(4))
    assert_near(covered.clipped_sum(1e6), expected)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_record_with_a_gradient_that_is_not_finite_counts_as_zero(
    adapted: LanguageModel, examples: Examples, poison: float
) -> None:
    covered = PerSampleGradients.attach(adapted.model)
    backward(adapted.model, examples(3))
    clean = covered.clipped_sum(0.1)
    backward(adapted.model, examples(4))
    gradients = covered.parameters[0].gradients
    assert gradients is not None
    gradients[3] = poison
    assert_near(covered.clipped_sum(0.1), clean)


def test_gradients_are_forgotten_after_the_sum(adapted: LanguageModel, examples: Examples) -> None:
    covered = PerSampleGradients.attach(adapted.model)
    backward(adapted.model, examples(2))
    covered.clipped_sum(1.0)
    assert all(parameter.gradients is None for parameter in covered.parameters)
    with pytest.raises(UnsupportedAdapterError, match="did not use"):
        covered.clipped_sum(1.0)


def test_a_weight_used_twice_adds_up() -> None:
    model = nn.ModuleDict({"lora_A": nn.ModuleDict({"default": nn.Linear(3, 2, bias=False)})})
    layer = model["lora_A"]["default"]  # type: ignore[index]
    inputs = torch.randn(4, 5, 3)
    covered = PerSampleGradients.attach(nn.ModuleDict({"one": model}))
    torch.autograd.backward((layer(inputs) + layer(2 * inputs)).sum())
    assert covered.parameters[0].gradients is not None
    expected = 3 * inputs.sum(1, keepdim=True).expand(4, 2, 3)
    assert torch.allclose(covered.parameters[0].gradients, expected, atol=1e-5)


def test_anything_trainable_that_is_not_covered_is_refused(adapted: LanguageModel) -> None:
    adapted.model.get_input_embeddings().weight.requires_grad_(requires_grad=True)
    with pytest.raises(UnsupportedAdapterError, match="embed_tokens"):
        PerSampleGradients.attach(adapted.model)


def test_a_model_with_nothing_to_train_is_refused(tiny: LanguageModel) -> None:
    with pytest.raises(UnsupportedAdapterError, match="nothing trainable"):
        PerSampleGradients.attach(tiny.model.requires_grad_(requires_grad=False))


def test_an_adapter_of_embeddings_is_refused(tiny: LanguageModel) -> None:
    model = add_adapter(tiny.model, LoraSettings(targets=("embed_tokens",)))
    with pytest.raises(UnsupportedAdapterError, match="not covered"):
        PerSampleGradients.attach(model)


def test_norms_span_all_weights() -> None:
    gradients = [torch.full((2, 3, 4), 2.0), torch.full((2, 1, 4), 1.0)]
    assert sample_norms(gradients).tolist() == pytest.approx([52.0**0.5] * 2)
