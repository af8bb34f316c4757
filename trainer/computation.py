"""How a private step is computed: in parts, in a shorter number format, with activations made twice."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Computation:
    """Choices of speed and memory. None of them changes the privacy guarantee.

    `micro_batch` is the most samples of one forward pass; `bfloat16` computes the passes under autocast, while norms,
    sums, noise and weights stay in float32; `gradient_checkpointing` keeps only each layer's inputs.
    """

    micro_batch: int = 6
    bfloat16: bool = False
    gradient_checkpointing: bool = False

    @classmethod
    def on(cls, device: torch.device) -> "Computation":
        """Return the choices for a device: bfloat16 on a GPU that has it."""
        return cls(bfloat16=device.type == "cuda" and torch.cuda.is_bf16_supported())

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return the context in which the forward pass runs."""
        return torch.autocast(device.type, dtype=torch.bfloat16) if self.bfloat16 else nullcontext()

    def prepare(self, model: Any) -> None:
        """Turn gradient checkpointing on, where it is chosen, without any dropout of the base model."""
        if not self.gradient_checkpointing:
            return
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False):
                # Not train(): it would reach the dropouts below, too.
                module.training = True


def even_parts(members: Sequence[int], most: int) -> list[Sequence[int]]:
    """Split members into the fewest parts of at most `most`, about equally large: small ones waste time."""
    count = -(-len(members) // most)
    bounds = [len(members) * part // max(count, 1) for part in range(count + 1)]
    return [members[first:end] for first, end in pairwise(bounds)]
