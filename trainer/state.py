"""What a training session must remember to go on exactly where it was: weights, optimizer moments, step, randomness."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ctrainer.trainer.checkpoint import Checkpoint
from ctrainer.trainer.errors import CorruptCheckpointError
from ctrainer.trainer.noise import Noise, Stretch
from ctrainer.trainer.randomness import Randomness

_TENSORS = "tensors.safetensors"
_POSITION = "position.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_HEADER_BYTES = 2_048  # of each weight, and of the manifest and position


class _Position(BaseModel):
    """Where a session was: its step, how often the weights were updated, and its randomness.

    `unsafe_position` is that of a seeded random stream; `noise` is what correlated noise has drawn so far. A session
    that passed steps over has fewer updates than steps.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    step: NonNegativeInt
    updates: NonNegativeInt
    unsafe_position: NonNegativeInt | None
    noise: tuple[Stretch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The moving parts of a session: the trainable weights by name, their optimizer, and the random stream."""

    weights: Mapping[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    randomness: Randomness
    noises: Noise

    @property
    def saved_bytes(self) -> int:
        """At least the bytes of a checkpoint."""
        numbers = sum(weight.numel() * weight.element_size() for weight in self.weights.values())
        return (1 + len(_MOMENTS)) * numbers + _HEADER_BYTES * (1 + len(self.weights))

    def saved(self, step: int, *, last: bool = False) -> dict[str, bytes]:
        """Return the files of a checkpoint at `step`.

        The key of a secure random stream is among them only while a pass with correlated noise goes on: its later steps
        need the earlier noise. Whoever reads it can remove that noise, so such checkpoints are as private as the data.
        """
        tensors: dict[str, Tensor] = {}
        for name, weight in self.weights.items():
            tensors[f"weight/{name}"] = weight.detach().contiguous()
            for moment in _MOMENTS:
                tensors[f"{moment}/{name}"] = self.optimizer.state[weight][moment]
        unsafe_position = self.randomness.position if self.randomness.unsafe_seeded else None
        position = _Position(
            step=step,
            updates=self._updates(),
            unsafe_position=unsafe_position,
            noise=() if last else tuple(self.noises.drawn()),
        )
        return {_TENSORS: save(tensors), _POSITION: position.model_dump_json().encode()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint. A seeded random stream goes on where it was; a secure one has a fresh key.

        Raises:
            CorruptCheckpointError: it is not a checkpoint of this adapter. Nothing was changed.
        """
        tensors, position = self._read(checkpoint)
        for name, weight in self.weights.items():
            weight.data.copy_(tensors[f"weight/{name}"])
            moments = {moment: tensors[f"{moment}/{name}"].to(weight.device) for moment in _MOMENTS}
            step = torch.tensor(float(position.updates), device=weight.device)
            self.optimizer.state[weight] = {"step": step, **moments}
        if position.unsafe_position is not None:
            self.randomness.position = position.unsafe_position
        self.noises.go_on(position.noise)

    def _updates(self) -> int:
        """Return how often the optimizer has updated the weights."""
        return int(next(iter(self.optimizer.state.values()))["step"])

    def _read(self, checkpoint: Checkpoint) -> tuple[dict[str, Tensor], _Position]:
        """Return the tensors of a checkpoint and where it was, if it is one of this adapter."""
        where = f"checkpoint of step {checkpoint.step}"
        try:
            tensors = load(checkpoint.files[_TENSORS])
            position = _Position.model_validate_json(checkpoint.files[_POSITION])
        except (KeyError, SafetensorError, ValidationError) as error:
            raise CorruptCheckpointError(f"{where}: {type(error).__name__}, expected tensors and a position") from error
        if {name: tensor.shape for name, tensor in tensors.items()} != self._shapes():
            raise CorruptCheckpointError(f"{where}: its tensors are those of another adapter; remove it to start again")
        if position.step != checkpoint.step:
            raise CorruptCheckpointError(f"{where}: its content is of step {position.step}")
        if (position.unsafe_position is not None) != self.randomness.unsafe_seeded:
            raise CorruptCheckpointError(f"{where}: got noise of another kind, expected seeded or secure as before")
        return tensors, position

    def _shapes(self) -> dict[str, torch.Size]:
        kinds = ("weight", *_MOMENTS)
        return {f"{kind}/{name}": weight.shape for name, weight in self.weights.items() for kind in kinds}
