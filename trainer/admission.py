"""Which waiting sessions start, by the memory that is free: oldest first, and none overtakes another."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The memory of the device that trains, in bytes; on a GPU (`halves`) a session can halve its micro-batches."""

    total: int
    free: int
    halves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many bytes a session takes at its peak, and the least with which it could still be trained."""

    usual: int
    least: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Which sessions may start now, which wait for memory, and which can never fit into this device."""

    start: tuple[str, ...] = ()
    wait: tuple[str, ...] = ()
    never: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of memory: that of the device (none: nobody can tell), and what each session needs of it.

    A session without a need is one that cannot be estimated. The `young` are sessions whose processes run, and have not
    taken all they need yet.
    """

    room: Room | None = None
    needs: Mapping[str, Need] = field(default_factory=dict)
    young: frozenset[str] = frozenset()

    def admit(self, waiting: Sequence[str], *, running: Collection[str]) -> Admission:
        """Decide about the waiting sessions, given oldest first.

        - None starts while an older one waits: what is freed goes to the oldest, so a large session waits for those
          that run, and never for younger ones.
        - One that fits the device starts when none of ours runs there, whatever others have taken: nothing that we know
          of would ever make more room.
        - What running sessions need stays theirs, whether they use it at present or not.
        - Where the memory is unknown, all start; so does a session whose need is unknown, in its turn.
        """
        if self.room is None:
            return Admission(start=tuple(waiting))
        start, wait, never = list[str](), list[str](), list[str]()
        for name in waiting:
            need = self.needs.get(name)
            if need is not None and need.least > self.room.total:
                never.append(name)
            elif wait or not self._fits(need, self.room, beside=[*running, *start], coming=start):
                wait.append(name)
            else:
                start.append(name)
        return Admission(start=tuple(start), wait=tuple(wait), never=tuple(never))

    def _fits(self, need: Need | None, room: Room, *, beside: Sequence[str], coming: Sequence[str]) -> bool:
        if need is None or not beside:
            return True
        promised = self._needed([name for name in beside if name in self.young or name in coming])
        return need.usual <= min(room.total - self._needed(beside), room.free - promised)

    def _needed(self, names: Collection[str]) -> int:
        return sum(self.needs[name].usual for name in names if name in self.needs)
