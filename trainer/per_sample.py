"""Per-sample gradients of LoRA layers in one backward pass, clipped and summed in a few large operations."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ctrainer.trainer.coverage import LoraLayer, covered_layers
from ctrainer.trainer.errors import UnsupportedAdapterError
from ctrainer.trainer.gradient_block import Factor, FactorGradients, GradientBlock
from ctrainer.trainer.lora_function import LoraFunction, Sinks

_BLOCK_NUMBERS = 1 << 18
"""Numbers of one sample in a block: large enough for a GPU, small enough that it costs no memory ahead of its use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedSum:
    """The sum of clipped gradients, one flat float32 tensor for each block; `not_finite` samples counted as zero.

    `largest` is the norm of the largest summand. All is private: the sum until noise is added, the rest always.
    """

    totals: list[Tensor]
    not_finite: int
    largest: float = 0.0

    def plus(self, other: "ClippedSum") -> "ClippedSum":
        """Return the sum over the samples of both, in the tensors of this one."""
        totals = [one.add_(another) for one, another in zip(self.totals, other.totals, strict=True)]
        return ClippedSum(
            totals=totals,
            not_finite=self.not_finite + other.not_finite,
            largest=max(self.largest, other.largest),
        )

    def mean_clipped(self, count: int, clip_norm: float) -> "ClippedSum":
        """Return the mean of `count` samples, clipped as a whole; zeros where it is not finite."""
        means = [total.div_(count) for total in self.totals]
        norm = _norm(means)
        if not math.isfinite(norm):
            means, norm = [torch.zeros_like(mean) for mean in means], 0.0
        factor = min(1.0, clip_norm / norm) if norm > 0 else 1.0
        clipped = [mean.mul_(factor) for mean in means]
        return ClippedSum(totals=clipped, not_finite=self.not_finite, largest=_norm(clipped))


def _norm(parts: Sequence[Tensor]) -> float:
    """Return the Euclidean norm of all parts together, in float64."""
    return math.sqrt(math.fsum(float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2 for part in parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class PerSampleGradients:
    """The trainable weights of a LoRA model and their per-sample gradients, in blocks of neighbouring layers."""

    layers: Sequence[LoraLayer]
    blocks: Sequence[GradientBlock]

    @classmethod
    def attach(cls, model: Any) -> "PerSampleGradients":
        """Make every LoRA layer of a peft model yield per-sample gradients wherever autograd records.

        Generation, merging, saving and evaluation of the model are as before.

        Raises:
            UnsupportedAdapterError: a trainable parameter is not covered.
        """
        attached = cls(layers=covered_layers(model), blocks=[])
        return cls(layers=attached.layers, blocks=[_attach(layers) for layers in _neighbours(attached.layers)])

    def detach(self) -> None:
        """Give every layer its own forward pass back."""
        for layer in self.layers:
            del layer.module.forward

    @property
    def factors(self) -> list[Factor]:
        """The trainable weights, block by block."""
        return list(chain.from_iterable(block.factors for block in self.blocks))

    def zeros(self) -> list[Tensor]:
        """Return a sum over no samples."""
        return [torch.zeros(block.size, device=block.device) for block in self.blocks]

    def clipped_sum(self, clip_norm: float, *, samples: int) -> ClippedSum:
        """Return the sum over samples of the gradients clipped to `clip_norm`, and forget them.

        Each sample's whole gradient, over all weights together, is scaled by min(1, clip_norm / norm). A sample whose
        gradient is not finite counts as zero, so that one poisoned record cannot end the run.

        Raises:
            UnsupportedAdapterError: a layer saw other than `samples` samples, or was not used at all.
        """
        gradients = self._taken(samples)
        norms = sample_norms(gradients)
        finite = torch.isfinite(norms)
        factors = (clip_norm / norms.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1.0)
        not_finite = samples - int(finite.sum())
        if not_finite:
            # Zero times NaN is NaN: the rows themselves must go.
            factors, norms = factors[finite], norms[finite]
            gradients = [gradient[finite] for gradient in gradients]
        totals = [torch.mv(rows.float().t(), factors) for rows in gradients]
        return ClippedSum(
            totals=[block.in_weight_order(total) for block, total in zip(self.blocks, totals, strict=True)],
            not_finite=not_finite,
            largest=float((factors * norms).max()) if len(norms) else 0.0,
        )

    def forget(self) -> None:
        """Drop what an unfinished backward pass left behind."""
        for block in self.blocks:
            block.forget()

    def per_weight(self, flat: Sequence[Tensor]) -> list[Tensor]:
        """Return flat tensors of all blocks, in the order of the weights, as a view for each of `factors`."""
        parts = (block.split(tensor) for block, tensor in zip(self.blocks, flat, strict=True))
        return list(chain.from_iterable(parts))

    def _taken(self, samples: int) -> list[Tensor]:
        gradients = [block.take() for block in self.blocks]
        for block, gradient in zip(self.blocks, gradients, strict=True):
            if len(gradient) != samples:
                name = block.factors[0].name
                raise UnsupportedAdapterError(f"{name}: got {len(gradient)} samples, expected {samples}")
        return gradients


@contextmanager
def per_sample_gradients(model: Any) -> Iterator[PerSampleGradients]:
    """Attach to a model, and detach at the end."""
    gradients = PerSampleGradients.attach(model)
    try:
        yield gradients
    finally:
        gradients.detach()


def sample_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of each sample's gradient over all blocks, in float32: shape [samples]."""
    norms = [torch.linalg.vector_norm(gradient, dim=1, dtype=torch.float32) for gradient in gradients]
    total: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return total


def _neighbours(layers: Sequence[LoraLayer]) -> Iterator[list[LoraLayer]]:
    """Yield runs of layers with about `_BLOCK_NUMBERS` trainable numbers on one device."""
    run: list[LoraLayer] = []
    numbers = 0
    for layer in layers:
        if run and (numbers >= _BLOCK_NUMBERS or layer.inner.device != run[0].inner.device):
            yield run
            run, numbers = [], 0
        run.append(layer)
        numbers += layer.inner.numel() + layer.outer.numel()
    yield run


def _attach(layers: Sequence[LoraLayer]) -> GradientBlock:
    pairs = [
        (
            Factor(name=f"{layer.name}.lora_A.{layer.adapter}.weight", weight=layer.inner, outer=False),
            Factor(name=f"{layer.name}.lora_B.{layer.adapter}.weight", weight=layer.outer, outer=True),
        )
        for layer in layers
    ]
    block = GradientBlock(list(chain.from_iterable(pairs)))
    for number, layer in enumerate(layers):
        sinks = Sinks(inner=FactorGradients(block, 2 * number), outer=FactorGradients(block, 2 * number + 1))
        layer.module.forward = _forward(layer, sinks)
    return block


def _forward(layer: LoraLayer, sinks: Sinks) -> Callable[..., Tensor]:
    module, plain = layer.module, layer.module.forward

    def forward(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_grad_enabled() or module.disable_adapters or module.merged:
            return plain(inputs, *args, **kwargs)  # type: ignore[no-any-return]
        scaling = module.scaling[layer.adapter]
        bias = module.base_layer.bias
        return LoraFunction.apply(inputs, layer.base, bias, layer.inner, layer.outer, scaling, sinks)  # type: ignore[no-any-return]

    return forward
