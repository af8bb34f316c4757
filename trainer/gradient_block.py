"""Per-sample gradients of neighbouring weights in one flat buffer, so that a GPU clips them in a few large kernels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor, nn

from ctrainer.trainer.errors import UnsupportedAdapterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One trainable weight; the per-sample gradients of an outer factor, LoRA's B, are made transposed on a CPU.

    That is four times as fast there. On a GPU it makes no difference, and all are made as they are needed.
    """

    name: str
    weight: nn.Parameter
    outer: bool

    @property
    def transposed(self) -> bool:
        """Whether its per-sample gradients are kept transposed."""
        return self.outer and self.weight.device.type == "cpu"

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of one sample's gradient as it is kept."""
        rows, columns = self.weight.shape
        return (columns, rows) if self.transposed else (rows, columns)


@dataclass(slots=True)
class GradientBlock:
    """Weights whose per-sample gradients lie side by side: `buffer` is [samples, numbers], None when there are none.

    The numbers of the buffer are in the order in which they are kept. All other flat tensors of a block (sums, noise,
    gradients) are in the order of the weights, so that the gradient of each weight is a view of them.
    """

    factors: Sequence[Factor]
    buffer: Tensor | None = None
    written: set[int] = field(default_factory=set)
    offsets: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.offsets = [0, *accumulate(factor.weight.numel() for factor in self.factors)]

    @property
    def size(self) -> int:
        """How many numbers one sample's gradient has."""
        return self.offsets[-1]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.factors[0].weight.device

    def add(self, place: int, left: Tensor, right: Tensor, scaling: float) -> None:
        """Add left' right, scaled, of every sample to the gradient of the factor at `place`: of B to its transposed.

        Raises:
            UnsupportedAdapterError: the tensors are not [samples, tokens, width] with the samples of the other weights.
        """
        factor = self.factors[place]
        name = factor.name
        if left.dim() != 3:  # noqa: PLR2004 - samples, tokens, width
            raise UnsupportedAdapterError(f"{name}: got inputs of {left.dim()} dimensions, expected samples by tokens")
        if self.buffer is None:
            self.buffer = left.new_empty(len(left), self.size)
        if len(self.buffer) != len(left):
            raise UnsupportedAdapterError(f"{name}: got {len(left)} samples, expected {len(self.buffer)}")
        columns = self.buffer[:, self.offsets[place] : self.offsets[place + 1]]
        kept = columns.view(len(left), *factor.shape)
        if factor.outer and not factor.transposed:
            left, right = right, left
        # With a beta of 0 what the new buffer happens to hold is ignored, NaN too.
        kept.baddbmm_(left.transpose(1, 2), right, beta=int(place in self.written), alpha=scaling)
        self.written.add(place)

    def take(self) -> Tensor:
        """Return the buffer and forget it.

        Raises:
            UnsupportedAdapterError: the last forward and backward passes did not use a weight.
        """
        unused = [factor.name for place, factor in enumerate(self.factors) if place not in self.written]
        taken = self.buffer
        self.forget()
        if taken is None or unused:
            raise UnsupportedAdapterError(f"{', '.join(unused[:5])}: the forward pass did not use this weight")
        return taken

    def forget(self) -> None:
        """Drop what the last backward pass left."""
        self.buffer = None
        self.written.clear()

    def in_weight_order(self, kept: Tensor) -> Tensor:
        """Return numbers in the order in which they are kept, with any leading dimensions, in that of the weights."""
        if not any(factor.transposed for factor in self.factors):
            return kept
        ordered = torch.empty_like(kept)
        for factor, source, target in zip(self.factors, self._parts(kept), self._parts(ordered), strict=True):
            places = _shaped(source, factor.shape)
            _shaped(target, factor.weight.shape).copy_(places.mT if factor.transposed else places)
        return ordered

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return flat numbers in the order of the weights, with any leading dimensions, as a view for each weight."""
        parts = zip(self.factors, self._parts(flat), strict=True)
        return [_shaped(part, factor.weight.shape) for factor, part in parts]

    def _parts(self, flat: Tensor) -> tuple[Tensor, ...]:
        return torch.split(flat, [factor.weight.numel() for factor in self.factors], dim=-1)


def _shaped(flat: Tensor, shape: Sequence[int]) -> Tensor:
    return flat.view(*flat.shape[:-1], *shape)


@dataclass(frozen=True, slots=True)
class FactorGradients:
    """Where an autograd function leaves the gradients of one factor."""

    block: GradientBlock
    place: int

    def add(self, left: Tensor, right: Tensor, scaling: float) -> None:
        """Add left' right of every sample, scaled."""
        self.block.add(self.place, left, right, scaling)
