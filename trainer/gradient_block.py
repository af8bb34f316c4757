"""Per-sample gradients of neighbouring weights in one flat buffer, so that a GPU clips them in a few large kernels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor, nn

from ctrainer.trainer.errors import UnsupportedAdapterError


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One trainable weight; an outer factor (LoRA's B) is kept transposed, which is four times as fast on a CPU."""

    name: str
    weight: nn.Parameter
    outer: bool

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of one sample's gradient as it is kept: [rank, width]."""
        rows, columns = self.weight.shape
        return (columns, rows) if self.outer else (rows, columns)

    def as_weight(self, flat: Tensor) -> Tensor:
        """Return flat numbers of this factor, with any leading dimensions, in the shape of its weight."""
        kept = flat.view(*flat.shape[:-1], *self.shape)
        return kept.transpose(-2, -1).contiguous() if self.outer else kept


@dataclass(slots=True)
class GradientBlock:
    """Weights whose per-sample gradients lie side by side: `buffer` is [samples, numbers], None when there are none."""

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

    def add(self, place: int, left: Tensor, right: Tensor) -> None:
        """Add left' right of every sample to the gradient of the factor at `place`.

        Raises:
            UnsupportedAdapterError: the tensors are not [samples, tokens, width] with the samples of the other weights.
        """
        name = self.factors[place].name
        if left.dim() != 3:  # noqa: PLR2004 - samples, tokens, width
            raise UnsupportedAdapterError(f"{name}: got inputs of {left.dim()} dimensions, expected samples by tokens")
        if self.buffer is None:
            self.buffer = left.new_empty(len(left), self.size)
        if len(self.buffer) != len(left):
            raise UnsupportedAdapterError(f"{name}: got {len(left)} samples, expected {len(self.buffer)}")
        columns = self.buffer[:, self.offsets[place] : self.offsets[place + 1]]
        kept = columns.view(len(left), *self.factors[place].shape)
        if place in self.written:
            kept.baddbmm_(left.transpose(1, 2), right)
        else:
            torch.bmm(left.transpose(1, 2), right, out=kept)
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

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return flat numbers of this block, with any leading dimensions, as one tensor for each weight."""
        sizes = [factor.weight.numel() for factor in self.factors]
        parts = torch.split(flat, sizes, dim=-1)
        return [factor.as_weight(part) for factor, part in zip(self.factors, parts, strict=True)]


@dataclass(frozen=True, slots=True)
class FactorGradients:
    """Where an autograd function leaves the gradients of one factor."""

    block: GradientBlock
    place: int

    def add(self, left: Tensor, right: Tensor) -> None:
        """Add left' right of every sample."""
        self.block.add(self.place, left, right)
