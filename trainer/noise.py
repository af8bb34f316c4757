"""The noise of one step after another: independent, correlated along a pass, or none where nothing is private."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt
from torch import Tensor

from ctrainer.schemas.privacy import PrivacyMode
from ctrainer.trainer.gradient_block import GradientBlock
from ctrainer.trainer.matrix_noise import MatrixNoise, column_norm, square_root_coefficients
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan
from ctrainer.trainer.randomness import Randomness


class Stretch(BaseModel):
    """Steps whose noise was drawn from one key stream, from a position on. `key` is none for a seeded stream.

    Whoever has the key can take the noise away again: it lies in checkpoints of a running pass, and nowhere else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: str | None
    position: NonNegativeInt
    steps: PositiveInt


class Noise(Protocol):
    """Gives each step its noise, once."""

    def next(self) -> list[Tensor]:
        """Return the noise of the next step: a flat float64 tensor for each block."""

    def fresh(self, noise: list[Tensor]) -> list[Tensor]:
        """Return what of the newest noise is independent of all that was drawn before."""

    def drawn(self) -> list[Stretch]:
        """Return what must be drawn again, in order, by whoever goes on after this step; nothing for most noise."""

    def go_on(self, drawn: Sequence[Stretch]) -> None:
        """Go on after what another process drew: with the same earlier noise, and fresh noise from here on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndependentNoise:
    """Gaussian noise of standard deviation `scale`, drawn anew for each step."""

    blocks: Sequence[GradientBlock]
    scale: float
    randomness: Randomness

    def next(self) -> list[Tensor]:
        """Draw the noise of a step."""
        drawn = self.randomness.normal(_size(self.blocks), self.blocks[0].device)
        return _split(drawn.mul_(self.scale), self.blocks)

    def fresh(self, noise: list[Tensor]) -> list[Tensor]:
        """Return all of it."""
        return noise

    def drawn(self) -> list[Stretch]:
        """Return nothing: no step's noise depends on another's."""
        return []

    def go_on(self, drawn: Sequence[Stretch]) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoNoise:
    """Zeros: for training without privacy."""

    blocks: Sequence[GradientBlock]

    def next(self) -> list[Tensor]:
        """Return zeros."""
        return [torch.zeros(block.size, dtype=torch.float64, device=block.device) for block in self.blocks]

    def fresh(self, noise: list[Tensor]) -> list[Tensor]:
        """Return all of it."""
        return noise

    def drawn(self) -> list[Stretch]:
        """Return nothing."""
        return []

    def go_on(self, drawn: Sequence[Stretch]) -> None:
        """Do nothing."""


@dataclass(slots=True, kw_only=True)
class CorrelatedNoise:
    """Noise that later steps take back in part; `scale` is that of independent noise with the same cost.

    It remembers from which key streams it drew, so that a process that goes on has the same earlier noise bit for bit.
    """

    blocks: Sequence[GradientBlock]
    scale: float
    bands: int
    steps: int
    randomness: Randomness
    stretches: list[Stretch] = field(default_factory=list, init=False)
    matrix: MatrixNoise = field(init=False)
    _source: Randomness | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._begin()

    def next(self) -> list[Tensor]:
        """Return the noise of the next step of the pass."""
        self._remember()
        return _split(self.matrix.next(), self.blocks)

    def fresh(self, noise: list[Tensor]) -> list[Tensor]:  # noqa: ARG002 - the sum of new and old noise
        """Return what the newest step drew; its standard deviation is `scale` times the gain."""
        return _split(self.matrix.newest, self.blocks)

    def drawn(self) -> list[Stretch]:
        """Return the key streams of all steps so far."""
        return list(self.stretches)

    def go_on(self, drawn: Sequence[Stretch]) -> None:
        """Draw the earlier noise again; with nothing drawn, begin a new sequence."""
        self._begin()
        for stretch in drawn:
            self._source = self._stream(stretch)
            for _ in range(stretch.steps):
                self.matrix.next()
        self._source = None
        self.stretches = list(drawn)

    def _begin(self) -> None:
        self.stretches = []
        self.matrix = MatrixNoise(bands=self.bands, steps=self.steps, scale=self.scale, draw=self._draw)

    def _draw(self) -> Tensor:
        source = self._source or self.randomness
        return source.normal(_size(self.blocks))

    def _remember(self) -> None:
        """Note that a step is drawn here, as part of the last stretch if the stream has just gone on."""
        source = self.randomness
        source.renew_key_of_another_process()
        key = None if source.unsafe_seeded else source.key.hex()
        last = self.stretches[-1] if self.stretches else None
        drawn = Randomness.blocks_of_normal(_size(self.blocks))
        if last is not None and last.key == key and source.position == last.position + last.steps * drawn:
            self.stretches[-1] = last.model_copy(update={"steps": last.steps + 1})
        else:
            self.stretches.append(Stretch(key=key, position=source.position, steps=1))

    def _stream(self, stretch: Stretch) -> Randomness:
        key = self.randomness.key if stretch.key is None else bytes.fromhex(stretch.key)
        return Randomness(key=key, position=stretch.position)


def _size(blocks: Sequence[GradientBlock]) -> int:
    return sum(block.size for block in blocks)


def _split(flat: Tensor, blocks: Sequence[GradientBlock]) -> list[Tensor]:
    parts = torch.split(flat, [block.size for block in blocks])
    return [part.to(block.device) for part, block in zip(parts, blocks, strict=True)]


def noise_gain(plan: PrivacyPlan) -> float:
    """Return how much wider than the noise multiplier the fresh noise of a step is: the sensitivity of the factor."""
    return column_norm(square_root_coefficients(plan.bands), steps=plan.steps)


def noise_of(plan: PrivacyPlan | NonPrivatePlan, blocks: Sequence[GradientBlock], randomness: Randomness) -> Noise:
    """Return the noise that a plan asks for."""
    if isinstance(plan, NonPrivatePlan):
        return NoNoise(blocks=blocks)
    scale = plan.noise_multiplier * plan.clip_norm
    if plan.mode is PrivacyMode.SINGLE_PASS_CORRELATED:
        return CorrelatedNoise(blocks=blocks, scale=scale, bands=plan.bands, steps=plan.steps, randomness=randomness)
    return IndependentNoise(blocks=blocks, scale=scale, randomness=randomness)
