"""What a training session must remember to go on exactly where it was: weights, optimizer moments, step, randomness."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ctrainer.trainer.checkpoint import Checkpoint
from ctrainer.trainer.randomness import Randomness

_TENSORS = "tensors.safetensors"
_POSITION = "position.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The moving parts of a session: the trainable weights by name, their optimizer, and the random stream."""

    weights: Mapping[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    randomness: Randomness

    def saved(self, step: int) -> dict[str, bytes]:
        """Return the files of a checkpoint at `step`. The key of a secure random stream is never among them."""
        tensors: dict[str, Tensor] = {}
        for name, weight in self.weights.items():
            tensors[f"weight/{name}"] = weight.detach().contiguous()
            for moment in _MOMENTS:
                tensors[f"{moment}/{name}"] = self.optimizer.state[weight][moment]
        position = {
            "step": step,
            "unsafe_position": self.randomness.position if self.randomness.unsafe_seeded else None,
        }
        return {_TENSORS: save(tensors), _POSITION: json.dumps(position).encode()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint. A seeded random stream goes on where it was; a secure one has a fresh key."""
        tensors = load(checkpoint.files[_TENSORS])
        for name, weight in self.weights.items():
            weight.data.copy_(tensors[f"weight/{name}"])
            moments = {moment: tensors[f"{moment}/{name}"].to(weight.device) for moment in _MOMENTS}
            self.optimizer.state[weight] = {"step": torch.tensor(float(checkpoint.step)), **moments}
        unsafe_position = json.loads(checkpoint.files[_POSITION])["unsafe_position"]
        if self.randomness.unsafe_seeded and unsafe_position is not None:
            self.randomness.position = unsafe_position
