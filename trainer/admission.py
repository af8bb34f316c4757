"""Which waiting sessions start, by the memory that is free: oldest first, and none overtakes another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_USABLE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The memory of the device that trains, in bytes."""

    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Which sessions may start now, which wait for memory, and which can never fit into this device."""

    start: tuple[str, ...]
    wait: tuple[str, ...]
    never: tuple[str, ...]


def admit(
    waiting: Sequence[tuple[str, int | None]], *, running: Mapping[str, int], young: frozenset[str], room: Room
) -> Admission:
    """Decide about sessions that wait, each with its need in bytes; one whose need is unknown is let in.

    `running` sessions keep what they need, whether they use it at present or not. What the `young` ones among them need
    is taken off what is free, because they have not taken it yet.
    """
    usable = int(_USABLE * room.total)
    promised = sum(running.get(name, 0) for name in young)
    left = min(usable - sum(running.values()), room.free - promised)
    start, wait, never = list[str](), list[str](), list[str]()
    for name, need in waiting:
        if need is not None and need > usable:
            never.append(name)
        elif wait or (need is not None and need > left):
            wait.append(name)
        else:
            start.append(name)
            left -= need or 0
    return Admission(start=tuple(start), wait=tuple(wait), never=tuple(never))
