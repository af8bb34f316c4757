import pytest

from ctrainer.agents.sessions import Session
from ctrainer.schemas.training import (
    WAITING_FOR_MEMORY,
    Desired,
    SessionAdvanced,
    SessionState,
    TrainingAssignment,
)
from ctrainer.streams.training_plan import NO_ROOM, TAKEN_OVER, UNREACHABLE, Attempts, next_moves
from ctrainer.trainer.admission import Memory, Need, Room
from tests.assigned import assignment


def session(
    name: str, *, desired: Desired = Desired.TRAINED, state: SessionState | None = None, reason: str | None = None
) -> Session:
    said = {"session_id": name, "tenant": "acme", "state": state, "step": 0, "steps": 8, "reason": reason}
    return Session(
        assignment=assignment(name, desired=desired), newest=SessionAdvanced.model_validate(said) if state else None
    )


def names(assignments: tuple[TrainingAssignment, ...]) -> list[str]:
    return [assignment.session_id for assignment in assignments]


def test_wanted_sessions_start_in_order_as_far_as_there_are_places() -> None:
    ours = {name: session(name) for name in ("a", "b", "c")}
    assert names(next_moves(ours, running=frozenset(), places=2).start) == ["a", "b"]
    assert names(next_moves(ours, running=frozenset({"a", "b"}), places=2).start) == []
    assert names(next_moves(ours, running=frozenset({"b"}), places=2).start) == ["a"]


def test_sessions_start_as_far_as_there_is_memory_and_those_that_wait_are_told_once() -> None:
    memory = Memory(room=Room(total=10, free=10), needs=dict.fromkeys("abc", Need(usual=6, least=6)))
    ours = {name: session(name, state=SessionState.ASSIGNED) for name in "abc"}
    moves = next_moves(ours, running=frozenset(), places=2, memory=memory)
    assert (names(moves.start), names(moves.wait)) == (["a"], ["b"])
    told = {**ours, "b": session("b", state=SessionState.ASSIGNED, reason=WAITING_FOR_MEMORY)}
    moves = next_moves(told, running=frozenset({"a"}), places=3, memory=memory)
    assert (names(moves.start), names(moves.wait)) == ([], ["c"])
    moves = next_moves(told, running=frozenset(), places=1, memory=memory)
    assert (names(moves.start), names(moves.wait)) == (["a"], [])


def test_what_a_session_that_is_stopped_needs_is_not_kept_for_it() -> None:
    memory = Memory(room=Room(total=10, free=10), needs=dict.fromkeys("ab", Need(usual=6, least=6)))
    ours = {"a": session("a", desired=Desired.PAUSED), "b": session("b")}
    moves = next_moves(ours, running=frozenset({"a"}), places=1, memory=memory)
    assert (moves.stop, names(moves.start)) == (("a",), ["b"])


def test_a_session_that_can_never_fit_is_not_started() -> None:
    memory = Memory(room=Room(total=10, free=10), needs={"a": Need(usual=16, least=11)})
    moves = next_moves({"a": session("a")}, running=frozenset(), places=1, memory=memory)
    assert (names(moves.never), moves.start, moves.wait) == (["a"], (), ())


def test_a_final_session_is_neither_started_nor_cancelled_and_its_process_is_stopped() -> None:
    ours = {"a": session("a", state=SessionState.COMPLETED)}
    moves = next_moves(ours, running=frozenset({"a"}), places=1)
    assert (moves.stop, moves.cancel, moves.start) == (("a",), (), ())


def test_a_cancelled_session_is_stopped_and_said_to_be_cancelled_once() -> None:
    ours = {"a": session("a", desired=Desired.CANCELLED)}
    moves = next_moves(ours, running=frozenset({"a"}), places=1)
    assert (moves.stop, names(moves.cancel), moves.start) == (("a",), ["a"], ())
    said = {"a": session("a", desired=Desired.CANCELLED, state=SessionState.CANCELLED)}
    assert next_moves(said, running=frozenset(), places=1).cancel == ()


def test_a_paused_session_is_stopped_and_said_to_be_paused_once_and_started_again_when_it_is_resumed() -> None:
    ours = {"a": session("a", desired=Desired.PAUSED, state=SessionState.TRAINING)}
    moves = next_moves(ours, running=frozenset({"a"}), places=1)
    assert (moves.stop, names(moves.pause), moves.cancel, moves.start) == (("a",), ["a"], (), ())
    said = {"a": session("a", desired=Desired.PAUSED, state=SessionState.PAUSED)}
    assert next_moves(said, running=frozenset(), places=1).pause == ()
    resumed = {"a": session("a", state=SessionState.PAUSED)}
    assert names(next_moves(resumed, running=frozenset(), places=1).start) == ["a"]


def test_a_session_that_became_anothers_is_stopped() -> None:
    assert next_moves({}, running=frozenset({"a"}), places=1).stop == ("a",)


def test_crashes_without_progress_exhaust_a_session_and_progress_forgives_them() -> None:
    attempts = Attempts(most=2)
    attempts.ended("a", 1)
    assert not attempts.exhausted("a", 0)
    attempts.ended("a", -9)
    assert attempts.exhausted("a", 0)
    assert not attempts.exhausted("a", 8)


def test_an_orderly_end_is_no_crash() -> None:
    attempts = Attempts(most=1)
    attempts.ended("a", 0)
    assert not attempts.exhausted("a", 0)


@pytest.mark.parametrize("status", [TAKEN_OVER, UNREACHABLE, NO_ROOM])
def test_a_session_that_is_taken_or_out_of_reach_is_tried_for_ever_with_pauses(status: int) -> None:
    attempts = Attempts(most=1)
    for _ in range(100):
        attempts.ended("a", status)
    assert not attempts.exhausted("a", 0)
    assert attempts.may_start("a", 0.0)
    assert not attempts.may_start("a", 59.0)
    assert attempts.may_start("a", 60.0)


def test_restarts_pause_longer_after_each_crash() -> None:
    attempts = Attempts()
    assert attempts.may_start("a", 0.0)
    attempts.ended("a", 1)
    assert not attempts.may_start("a", 0.5)
    assert attempts.may_start("a", 1.0)
    assert not attempts.may_start("a", 2.5)
    assert attempts.may_start("a", 3.0)
