"""What a trainer does next: pure decisions over the table of sessions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ctrainer.agents.sessions import Session
from ctrainer.schemas.training import WAITING_FOR_MEMORY, Desired, SessionState, TrainingAssignment
from ctrainer.trainer.admission import Memory

TAKEN_OVER = 75
UNREACHABLE = 69
NO_ROOM = 74
"""How the process of a session ends when nothing is wrong with the session: see `training_session`."""

MOST_CRASHES = 5
"""How often the process of a session may crash at one step before the session counts as failed."""

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """What to do, in this order: processes to stop, what to say of sessions, and which to start.

    `wait` are those to be told, now and not again, that they wait for memory; `never` those that can never fit.
    """

    stop: tuple[str, ...]
    pause: tuple[TrainingAssignment, ...]
    cancel: tuple[TrainingAssignment, ...]
    never: tuple[TrainingAssignment, ...]
    wait: tuple[TrainingAssignment, ...]
    start: tuple[TrainingAssignment, ...]


def next_moves(
    ours: Mapping[str, Session], *, running: frozenset[str], places: int, memory: Memory | None = None
) -> Moves:
    """Return the moves that bring `running` processes towards what is desired of our sessions.

    At most `places` run side by side, and no more than fit into `memory`, where that is known; the others wait in the
    order in which they were assigned.
    """
    kept = running.intersection(name for name, session in ours.items() if session.is_wanted)
    candidates = next_in_line(ours, running=running, places=places)
    admission = (memory or Memory()).admit(candidates, running=kept)
    return Moves(
        stop=tuple(sorted(running - kept)),
        pause=tuple(session.assignment for session in ours.values() if session.assignment and session.is_to_be_paused),
        cancel=_with_desire(ours, Desired.CANCELLED),
        never=_assignments(ours, admission.never),
        wait=_assignments(ours, [name for name in admission.wait if not _knows_that_it_waits(ours[name])]),
        start=_assignments(ours, admission.start),
    )


def next_in_line(ours: Mapping[str, Session], *, running: frozenset[str], places: int) -> tuple[str, ...]:
    """Return the sessions that have a place to run in, and no process: the oldest first."""
    wanted = [name for name, session in ours.items() if session.is_wanted]
    free = max(0, places - len(running.intersection(wanted)))
    return tuple([name for name in wanted if name not in running][:free])


def _assignments(ours: Mapping[str, Session], names: Iterable[str]) -> tuple[TrainingAssignment, ...]:
    return tuple(assignment for name in names if (assignment := ours[name].assignment))


def _knows_that_it_waits(session: Session) -> bool:
    newest = session.newest
    return newest is not None and (newest.state, newest.reason) == (SessionState.ASSIGNED, WAITING_FOR_MEMORY)


def _with_desire(ours: Mapping[str, Session], desired: Desired) -> tuple[TrainingAssignment, ...]:
    """Return the assignments of the active sessions of which something is desired."""
    assignments = (session.assignment for session in ours.values() if session.is_active)
    return tuple(assignment for assignment in assignments if assignment and assignment.desired is desired)


@dataclass(slots=True)
class Attempts:
    """How often the process of each session ended badly without getting any further.

    Crashes are counted against `most`. A process that found its session taken, Kafka out of reach, or no room for
    a checkpoint, is no crash: it is only tried again after a longer pause.
    """

    most: int = MOST_CRASHES
    _crashes: dict[str, int] = field(default_factory=dict)
    _setbacks: dict[str, int] = field(default_factory=dict)
    _steps: dict[str, int] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)

    def ended(self, session_id: str, status: int) -> None:
        """Note that a process ended; status 0 is an orderly end."""
        if status != 0:
            self._setbacks[session_id] = self._setbacks.get(session_id, 0) + 1
        if status not in {0, TAKEN_OVER, UNREACHABLE, NO_ROOM}:
            self._crashes[session_id] = self._crashes.get(session_id, 0) + 1

    def exhausted(self, session_id: str, step: int) -> bool:
        """Return whether a session at `step` has crashed too often; progress since the last crash clears the count."""
        if step > self._steps.get(session_id, 0):
            self._steps[session_id] = step
            self._crashes[session_id] = self._setbacks[session_id] = 0
        return self._crashes.get(session_id, 0) >= self.most

    def may_start(self, session_id: str, now: float) -> bool:
        """Return whether the pause after the last start is over; it doubles with each setback, up to a minute."""
        if now < self._not_before.get(session_id, 0.0):
            return False
        pause = _FIRST_PAUSE_SECONDS * 2 ** min(self._setbacks.get(session_id, 0), 10)
        self._not_before[session_id] = now + min(pause, _LONGEST_PAUSE_SECONDS)
        return True
