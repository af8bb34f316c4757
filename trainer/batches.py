"""Which units meet which step. A unit is what one clipped gradient stands for: a record, or all records of a user."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from ctrainer.schemas.privacy import PrivacyMode
from ctrainer.trainer.randomness import Randomness

_SLOT_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The examples of one unit, by index; `identity` depends on the unit alone: a content digest, or a user's."""

    identity: str
    examples: tuple[int, ...]


class Batches(Protocol):
    """The units of each step, by index."""

    def of(self, step: int) -> list[int]:
        """Return the units of a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonBatches:
    """Every unit is in each batch with probability `rate`, independently of all others and of all other batches."""

    units: int
    rate: float
    randomness: Randomness

    def of(self, step: int) -> list[int]:  # noqa: ARG002 - each draw is a fresh one
        """Draw the units of a step."""
        return self.randomness.poisson_sample(self.units, self.rate)


@dataclass(frozen=True, slots=True)
class SlotBatches:
    """Every unit is in at most one batch: the one of its slot."""

    slots: Mapping[int, Sequence[int]]

    @classmethod
    def drawn(cls, identities: Iterable[str], *, rate: float) -> "SlotBatches":
        """Give every unit its slot; a batch is expected to have the share `rate` of them."""
        slots: dict[int, list[int]] = defaultdict(list)
        for unit, identity in enumerate(identities):
            slots[slot_of(identity, rate=rate)].append(unit)
        return cls(MappingProxyType(slots))

    def of(self, step: int) -> list[int]:
        """Return the units whose slot is this step."""
        return list(self.slots.get(step, ()))


def slot_of(identity: str, *, rate: float) -> int:
    """Return the step that a unit is in: from its identity and the public rate alone.

    Its rank among the others, or its place in a topic, would move when another record is left out, and then one record
    would change more than one batch. Slots beyond the last step are never trained on.

    >>> slot_of("sha256:ab", rate=0.25) == slot_of("sha256:ab", rate=0.25), slot_of("anything", rate=1.0)
    (True, 0)
    """
    drawn = int.from_bytes(hashlib.sha256(f"slot {identity}".encode()).digest()[:_SLOT_BYTES])
    return int(drawn / 2 ** (8 * _SLOT_BYTES) / rate)


def batches_of(mode: PrivacyMode | None, units: Sequence[Unit], *, rate: float, randomness: Randomness) -> Batches:
    """Return the batches of a mode; those without privacy (None) are Poisson batches too."""
    if mode is not None and mode.is_single_pass:
        return SlotBatches.drawn((unit.identity for unit in units), rate=rate)
    return PoissonBatches(units=len(units), rate=rate, randomness=randomness)


def one_each(examples: int) -> list[Unit]:
    """Return a unit for each example, named by its index."""
    return [Unit(identity=str(index), examples=(index,)) for index in range(examples)]
