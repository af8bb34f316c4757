"""What a trainer knows of memory: what its device has, what its sessions need, and how to say so."""

from collections.abc import Sequence
from dataclasses import dataclass

from ctrainer.schemas.training import TrainAdapter, TrainingAssignment
from ctrainer.streams.device_memory import DeviceMemory
from ctrainer.trainer.admission import Memory, Need, Room
from ctrainer.trainer.memory_need import memory_need, most_tokens, shape_of
from ctrainer.trainer.micro_batch import CPU_MICRO_BATCH, GPU_MICRO_BATCH, MicroBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMemory:
    """Looks at a device for sessions of `ranks` processes on this machine."""

    device: DeviceMemory
    ranks: int = 1

    def look(
        self, waiting: Sequence[TrainingAssignment], running: Sequence[TrainingAssignment], young: frozenset[str]
    ) -> Memory:
        """Return what is known, as far as it matters: the device is asked only while somebody waits."""
        room = self.device.room() if waiting else None
        if room is None:
            return Memory()
        needs = {one.session_id: need for one in (*waiting, *running) if (need := self._need(one.request, room))}
        return Memory(room=room, needs=needs, young=young)

    def misfit(self, assignment: TrainingAssignment, memory: Memory) -> str:
        """Return why a session can never fit, and what would."""
        need, room, request = memory.needs.get(assignment.session_id), memory.room, assignment.request
        shape = shape_of(request.base_model)
        if need is None or room is None or shape is None:
            return "it does not fit into memory"
        fitting = most_tokens(
            shape,
            request.lora,
            within=room.total // self._processes(room),
            micro_batch=_least_micro_batch(room),
            bfloat16=room.halves,
        )
        advice = (
            f"max_tokens of at most {fitting}" if fitting else "a smaller base model, or a trainer with more memory"
        )
        has = _size(room.total)
        return f"it needs at least {_size(need.least)} of memory, its trainer's device has {has}; {advice} would fit"

    def wait(self, assignment: TrainingAssignment, memory: Memory) -> str:
        """Return for what a session waits."""
        need, room = memory.needs.get(assignment.session_id), memory.room
        if need is None or room is None:
            return "it waits for an older session"
        return (
            f"it needs about {_size(need.usual)} of memory; {_size(room.free)} of {_size(room.total)} are free,"
            " less what running and older sessions are about to take"
        )

    def _need(self, request: TrainAdapter, room: Room) -> Need | None:
        shape = shape_of(request.base_model)
        if shape is None:
            return None
        max_tokens = request.optimizer.max_tokens
        usual, least = (
            self._processes(room)
            * memory_need(shape, request.lora, max_tokens=max_tokens, micro_batch=most, bfloat16=room.halves)
            for most in (GPU_MICRO_BATCH if room.halves else CPU_MICRO_BATCH, _least_micro_batch(room))
        )
        return Need(usual=usual, least=least)

    def _processes(self, room: Room) -> int:
        """Return how many processes of a session share the memory: each rank has a GPU of its own, but no RAM."""
        return 1 if room.halves else self.ranks


def _least_micro_batch(room: Room) -> MicroBatch:
    return MicroBatch(1) if room.halves else CPU_MICRO_BATCH


def _size(number: int) -> str:
    """Return a number of bytes as people say it.

    >>> _size(3 * 1024**3 // 2)
    '1.5 GiB'
    """
    return f"{number / 1024**3:.1f} GiB"
