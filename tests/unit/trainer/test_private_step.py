from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ctrainer.trainer.computation import Computation
from ctrainer.trainer.errors import OutOfMemoryError
from ctrainer.trainer.micro_batch import MicroBatch
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.per_sample import per_sample_gradients
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import EncodedExample
from tests import assigned

Examples = Callable[[int], list[EncodedExample]]
PLAN = replace(
    assigned.PLAN, noise_multiplier=0.5, sampling_rate=0.1, expected_batch_size=3.0, clip_norm=0.02, steps=10
)


class Allocator:
    """Runs out of memory at one forward pass, or at one backward pass, or at every pass of too many samples."""

    def __init__(self, model: Any, *, forward: int = -1, backward: int = -1, most: int = 1_000) -> None:
        self.sizes: list[int] = []
        self.forward, self.backward, self.most = forward, backward, most
        # The first layer: in the backward pass the others have left gradients behind by then.
        model.base_model.model.model.layers[0].register_forward_hook(self.allocate)

    def allocate(self, _: object, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.sizes.append(len(inputs[0]))
        if len(self.sizes) - 1 == self.forward or len(inputs[0]) > self.most:
            raise torch.OutOfMemoryError("made up: tried to allocate")
        if len(self.sizes) - 1 == self.backward:
            output.register_hook(self.refuse)  # type: ignore[no-untyped-call]

    def refuse(self, _: Tensor) -> None:
        raise torch.OutOfMemoryError("made up: tried to allocate")


@pytest.fixture
def step(adapted: LanguageModel) -> Iterator[PrivateStep]:
    with per_sample_gradients(adapted.model) as gradients:
        yield PrivateStep(
            model=adapted.model,
            gradients=gradients,
            plan=PLAN,
            randomness=Randomness.unsafe_from_seed(8),
            computation=Computation(micro_batch=MicroBatch(6)),
            pad_token_id=0,
        )


def signal(step: PrivateStep, rows: list[EncodedExample]) -> Tensor:
    return torch.cat(step.signal(rows).totals)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("micro_batch", [1, 2, 5, 11])
def test_the_size_of_micro_batches_does_not_change_the_signal(
    step: PrivateStep, examples: Examples, micro_batch: int
) -> None:
    expected = signal(step, examples(11))
    step.micro_batch = MicroBatch(micro_batch)
    assert relative(signal(step, examples(11)), expected) <= 1e-6


@pytest.mark.parametrize("when", [{"forward": 0}, {"forward": 1}, {"backward": 0}, {"backward": 1}])
def test_micro_batches_halve_when_memory_runs_out_and_the_signal_is_the_same(
    step: PrivateStep, examples: Examples, when: dict[str, int]
) -> None:
    expected = signal(step, examples(11))
    allocator = Allocator(step.model, **when)
    assert relative(signal(step, examples(11)), expected) <= 1e-6
    (failed,) = (allocator.sizes[number] for number in when.values())
    assert failed > 1
    assert step.micro_batch == MicroBatch(-(-failed // 2))
    allocator.sizes.clear()
    allocator.forward = allocator.backward = -1
    signal(step, examples(11))
    assert max(allocator.sizes) <= step.micro_batch.records


def test_micro_batches_halve_until_they_fit(step: PrivateStep, examples: Examples) -> None:
    expected = signal(step, examples(11))
    Allocator(step.model, most=1)
    assert relative(signal(step, examples(11)), expected) <= 1e-6
    assert step.micro_batch == MicroBatch(1)


def test_a_single_record_that_does_not_fit_is_refused_by_its_length(step: PrivateStep, examples: Examples) -> None:
    Allocator(step.model, most=0)
    with pytest.raises(OutOfMemoryError, match=r"one record of \d+ tokens does not fit"):
        step.signal(examples(2))


def test_other_errors_are_not_taken_for_a_lack_of_memory(step: PrivateStep, examples: Examples) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    step.model.base_model.model.model.layers[0].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken"):
        step.signal(examples(2))


def test_no_records_give_zeros_without_a_forward_pass(step: PrivateStep) -> None:
    allocator = Allocator(step.model)
    found = step.signal([])
    assert not any(bool(total.any()) for total in found.totals)
    assert sum(len(total) for total in found.totals) == sum(factor.weight.numel() for factor in step.gradients.factors)
    assert allocator.sizes == []


def test_records_of_like_length_share_a_micro_batch(step: PrivateStep, examples: Examples) -> None:
    widths: list[int] = []
    layer = step.model.base_model.model.model.layers[0]
    layer.register_forward_pre_hook(lambda _, inputs: widths.append(inputs[0].shape[1]))
    rows = examples(12)
    signal(step, rows)
    lengths = {len(row.token_ids) for row in rows}
    assert len(lengths) == 5
    assert widths == sorted(widths)
    assert 2 <= len(widths) <= 5
    assert set(widths) <= lengths


def test_a_poisoned_record_counts_as_zero_and_is_counted(step: PrivateStep, examples: Examples) -> None:
    clean = signal(step, examples(4))
    embedding = step.model.get_input_embeddings()
    poison = EncodedExample(token_ids=(250, 250, 250), labels=(250, 250, 250))
    assert not any(250 in row.token_ids for row in examples(4))
    embedding.weight.data[250] = float("inf")
    # Tied to the embedding: the logits of the others must stay finite.
    step.model.base_model.model.lm_head.weight = torch.nn.Parameter(
        embedding.weight.detach().nan_to_num(posinf=0.0), requires_grad=False
    )
    found = step.signal([*examples(4), poison])
    assert found.not_finite == 1
    assert bool(torch.isfinite(torch.cat(found.totals)).all())
    assert relative(torch.cat(found.totals), clean) < 0.2


def test_noise_is_drawn_once_and_has_the_planned_size(step: PrivateStep) -> None:
    position = step.randomness.position
    noise = torch.cat(step.noise())
    assert noise.dtype is torch.float64
    assert step.randomness.position - position >= len(noise)
    expected = PLAN.noise_multiplier * PLAN.clip_norm
    assert float(noise.std()) == pytest.approx(expected, rel=5 / (2 * len(noise)) ** 0.5)


def test_the_gradient_is_signal_and_noise_over_the_expected_batch_size(step: PrivateStep) -> None:
    numbers = [torch.arange(block.size, dtype=torch.float32) for block in step.gradients.blocks]
    noise = step.noise()
    step.set_gradient(numbers, noise)
    expected = step.gradients.per_weight(
        [((one.double() + draw) / 3.0).float() for one, draw in zip(numbers, noise, strict=True)]
    )
    for factor, gradient in zip(step.gradients.factors, expected, strict=True):
        assert factor.weight.grad is not None
        assert factor.weight.grad.shape == factor.weight.shape
        assert torch.equal(factor.weight.grad, gradient)
