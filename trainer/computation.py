"""How a private step is computed: in parts, in a shorter number format, with activations made twice."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ctrainer.trainer.micro_batch import CPU_MICRO_BATCH, GPU_MICRO_BATCH, MicroBatch

_PASS_TOKENS_OF_A_GPU = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class Computation:
    """Choices of speed and memory. None of them changes the privacy guarantee.

    `micro_batch` is the most of one forward pass; `bfloat16` computes the passes under autocast, while norms, sums,
    noise and the adapter's weights stay in float32; `gradient_checkpointing` keeps only each layer's inputs.
    `pass_tokens` is how many tokens of padding cost as much as one more forward and backward pass.
    """

    micro_batch: MicroBatch = CPU_MICRO_BATCH
    pass_tokens: int = 16
    bfloat16: bool = False
    gradient_checkpointing: bool = False

    @classmethod
    def on(cls, device: torch.device) -> "Computation":
        """Return the choices for a device: on a GPU bfloat16, where it has that, and few passes."""
        if device.type != "cuda":
            return cls()
        bfloat16 = torch.cuda.is_bf16_supported()
        return cls(micro_batch=GPU_MICRO_BATCH, bfloat16=bfloat16, pass_tokens=_PASS_TOKENS_OF_A_GPU)

    @property
    def base_type(self) -> torch.dtype:
        """The number format of the frozen base model: what its passes would convert it to, each time."""
        return torch.bfloat16 if self.bfloat16 else torch.float32

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


def placed(base: Any, device: torch.device) -> Any:
    """Move a frozen base model to a device, in the number format of its passes there.

    An adapter comes after: one that was made before would be left behind, and never train.
    """
    return base.to(device, Computation.on(device).base_type)
