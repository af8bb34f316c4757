"""A frozen linear layer and its LoRA factors in one autograd function, with gradients for each sample.

The weight gradients of a low-rank layer cost the same number of operations for each sample as summed over the batch;
one function for the whole layer saves the passes over memory that scaling and adding would cost.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Products(Protocol):
    """Takes the gradients of one factor."""

    def add(self, left: Tensor, right: Tensor, scaling: float) -> None:
        """Add, for each sample, `scaling` times the product of `left` transposed and `right`: the sum over tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sinks:
    """Where the gradients of the two factors go: of A as [rank, in], of B transposed, as [rank, out]."""

    inner: Products
    outer: Products


class LoraFunction(torch.autograd.Function):
    """inputs W' + bias + scaling * inputs A' B', for inputs of shape [samples, tokens, in].

    W, A and B are given as [out, in], [rank, in] and [out, rank]. What is kept for the backward pass is no more than
    autograd itself would keep: the inputs once, and the narrow product inputs A'.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd functions take positional arguments
        ctx: Any,
        inputs: Tensor,
        base: Tensor,
        bias: Tensor | None,
        inner: Tensor,
        outer: Tensor,
        scaling: float,
        sinks: Sinks,
    ) -> Tensor:
        """Return the outputs, [samples, tokens, out], in the number format of autocast where that is on."""
        device = inputs.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            inputs, base, inner, outer = (part.to(dtype) for part in (inputs, base, inner, outer))
            bias = None if bias is None else bias.to(dtype)
        outputs = torch.nn.functional.linear(inputs, base, bias)
        narrow = torch.nn.functional.linear(inputs.to(inner.dtype), inner)
        _add_product(outputs, narrow, outer.t(), scaling)
        ctx.save_for_backward(inputs, base, inner, outer, narrow)
        ctx.scaling, ctx.sinks = scaling, sinks
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Hand the weight gradients of each sample to the sinks, and return that of the inputs."""
        inputs, base, inner, outer, narrow = ctx.saved_tensors
        narrow_type = gradient.to(outer.dtype)
        ctx.sinks.outer.add(narrow, narrow_type, ctx.scaling)
        narrow_gradient = torch.matmul(narrow_type, outer)
        ctx.sinks.inner.add(narrow_gradient, inputs.to(inner.dtype), ctx.scaling)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = torch.matmul(gradient.to(base.dtype), base)
            _add_product(input_gradient, narrow_gradient, inner, ctx.scaling)
        return input_gradient, None, None, None, None, None, None


def _add_product(total: Tensor, narrow: Tensor, wide: Tensor, factor: float) -> None:
    """Add `factor` times `narrow` times `wide` to a total in place, over its flattened rows."""
    if total.dtype == narrow.dtype:
        total.view(-1, total.shape[-1]).addmm_(narrow.flatten(0, -2), wide, alpha=factor)
    else:
        total.add_(torch.matmul(narrow, wide), alpha=factor)
