"""Per-sample gradients of LoRA layers in one backward pass.

Each trainable LoRA factor is a linear layer without bias. Where autograd would compute its gradient summed over the
batch, an autograd function of our own computes one gradient for each sample: the same number of operations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from ctrainer.trainer.errors import UnsupportedAdapterError


class _PerSampleLinear(torch.autograd.Function):
    """A linear map whose weight gradient is handed to `store` sample by sample instead of being summed."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, store: Callable[[Tensor], None]) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.store = store
        return nn.functional.linear(inputs, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (gradient,) = gradients
        inputs, weight = ctx.saved_tensors
        # Shapes: gradient [batch, tokens, out], inputs [batch, tokens, in]; sums over tokens are kept in float32.
        ctx.store(torch.bmm(gradient.float().transpose(1, 2), inputs.float()))
        return (gradient @ weight.to(gradient.dtype) if ctx.needs_input_grad[0] else None), None, None


@dataclass(slots=True)
class CoveredParameter:
    """One trainable weight and the per-sample gradients of the last backward pass, shape [batch, out, in]."""

    name: str
    weight: nn.Parameter
    gradients: Tensor | None = None

    def store(self, gradients: Tensor) -> None:
        """Keep the gradients of one use of the weight; a weight used twice in a forward pass adds up."""
        self.gradients = gradients if self.gradients is None else self.gradients + gradients


@dataclass(slots=True)
class PerSampleGradients:
    """The trainable weights of a LoRA model, each with its per-sample gradients."""

    parameters: list[CoveredParameter] = field(default_factory=list)

    @classmethod
    def attach(cls, model: nn.Module) -> "PerSampleGradients":
        """Make every trainable LoRA factor of `model` yield per-sample gradients.

        Raises:
            UnsupportedAdapterError: a trainable parameter is not the weight of such a factor.
        """
        covered = cls()
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and _is_lora_factor(name) and module.weight.requires_grad:
                covered.parameters.append(_cover(f"{name}.weight", module))
        names = {parameter.name for parameter in covered.parameters}
        uncovered = [
            name for name, parameter in model.named_parameters() if parameter.requires_grad and name not in names
        ]
        if uncovered or not names:
            raise UnsupportedAdapterError(
                f"trainable but not covered: {', '.join(uncovered[:5]) or 'nothing trainable'}"
            )
        return covered

    def clipped_sum(self, clip_norm: float) -> list[Tensor]:
        """Return, for each weight, the sum over samples of the gradients clipped to `clip_norm`, and forget them.

        Each sample's whole gradient, over all weights together, is scaled by min(1, clip_norm / norm). A sample whose
        gradient is not finite counts as zero, so that one poisoned record cannot end the run.
        """
        gradients = [_taken(parameter) for parameter in self.parameters]
        norms = sample_norms(gradients)
        finite = torch.isfinite(norms)
        factors = (clip_norm / norms[finite].clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1.0)
        return [torch.tensordot(factors, gradient[finite], dims=1) for gradient in gradients]


def sample_norms(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of each sample's gradient over all weights: shape [batch]."""
    squares = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients])
    return squares.sum(0).sqrt()


def _is_lora_factor(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _cover(name: str, module: nn.Linear) -> CoveredParameter:
    bias: nn.Parameter | None = module.bias
    if bias is not None:
        raise UnsupportedAdapterError(f"{name}: a LoRA factor with a bias is not covered")
    weight = cast("nn.Parameter", module.weight)
    parameter = CoveredParameter(name, weight)

    def forward(inputs: Tensor) -> Tensor:
        return cast("Tensor", _PerSampleLinear.apply(inputs, weight, parameter.store))

    setattr(module, "forward", forward)  # noqa: B010 - replaces this instance's forward, which a type checker refuses
    return parameter


def _taken(parameter: CoveredParameter) -> Tensor:
    gradients, parameter.gradients = parameter.gradients, None
    if gradients is None:
        raise UnsupportedAdapterError(f"{parameter.name}: the forward pass did not use this weight")
    return gradients
