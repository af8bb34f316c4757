"""The table of training sessions: a pure projection of what was assigned and how it went."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import orjson

from ctrainer.agents.records import OutputRecord, Record
from ctrainer.schemas.envelope import event_type
from ctrainer.schemas.topics import TRAINING_ASSIGNMENTS, TRAINING_PROGRESS
from ctrainer.schemas.training import FINAL_STATES, Desired, SessionAdvanced, SessionState, TrainingAssignment

_ADVANCED = event_type(SessionAdvanced)
_NOT_BEGUN = frozenset({SessionState.ASSIGNED, SessionState.PAUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One session: what is desired of it, and the newest word about it."""

    assignment: TrainingAssignment | None = None
    newest: SessionAdvanced | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.newest is not None and self.newest.state in FINAL_STATES

    @property
    def is_active(self) -> bool:
        """Whether something may still happen to it."""
        return self.assignment is not None and not self.is_final

    @property
    def is_to_be_paused(self) -> bool:
        """Whether a trainer shall let go of it for a while, and has not said so."""
        return self._is_desired(Desired.PAUSED) and not self._rests

    @property
    def takes_place(self) -> bool:
        """Whether it takes one of the places of active sessions: a paused one does until the trainer has let go."""
        return self.is_active and not (self._is_desired(Desired.PAUSED) and self._rests)

    @property
    def is_wanted(self) -> bool:
        """Whether a trainer shall train it."""
        return self._is_desired(Desired.TRAINED)

    @property
    def waits_for_trainer(self) -> bool:
        """Whether it shall be trained, and no trainer has begun with it."""
        return self.is_wanted and (self.newest is None or self.newest.state in _NOT_BEGUN)

    @property
    def _rests(self) -> bool:
        return self.newest is not None and self.newest.state is SessionState.PAUSED

    def _is_desired(self, desired: Desired) -> bool:
        return self.is_active and self.assignment is not None and self.assignment.desired is desired


@dataclass(frozen=True, slots=True)
class Sessions:
    """All sessions by id, in the order in which they were first heard of."""

    by_id: Mapping[str, Session] = field(default_factory=lambda: MappingProxyType({}))

    def after(self, record: Record | OutputRecord) -> "Sessions":
        """Return the table after one more record; other topics than assignments and progress say nothing.

        A session whose assignment was deleted (an empty value under its id) is forgotten.
        """
        if record.topic not in {TRAINING_ASSIGNMENTS, TRAINING_PROGRESS}:
            return self
        if record.value is None:
            return self._without((record.key or b"").decode("utf-8", "replace"))
        envelope = orjson.loads(record.value)
        if record.topic == TRAINING_ASSIGNMENTS:
            assignment = TrainingAssignment.model_validate(envelope["data"])
            return self._with(assignment.session_id, assignment=assignment)
        if envelope["type"] == _ADVANCED:
            return self._advanced(SessionAdvanced.model_validate(envelope["data"]))
        return self

    def active(self) -> tuple[TrainingAssignment, ...]:
        """Return the assignments of the active sessions."""
        return tuple(session.assignment for session in self.by_id.values() if session.assignment and session.is_active)

    @property
    def places_taken(self) -> int:
        """How many places of active sessions are taken."""
        return sum(session.takes_place for session in self.by_id.values())

    def _advanced(self, advanced: SessionAdvanced) -> "Sessions":
        """Take in the newest word; a final state is never left again."""
        known = self.by_id.get(advanced.session_id, Session())
        return self if known.is_final else self._with(advanced.session_id, newest=advanced)

    def _without(self, session_id: str) -> "Sessions":
        return Sessions(MappingProxyType({name: known for name, known in self.by_id.items() if name != session_id}))

    def _with(self, session_id: str, **changes: TrainingAssignment | SessionAdvanced) -> "Sessions":
        known = self.by_id.get(session_id, Session())
        changed = replace(known, **changes)  # type: ignore[arg-type] # names and types are those of Session
        return Sessions(MappingProxyType({**self.by_id, session_id: changed}))
