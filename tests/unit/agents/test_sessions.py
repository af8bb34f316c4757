from ctrainer.agents.events import event_record
from ctrainer.agents.records import OutputRecord, Record
from ctrainer.agents.sessions import Sessions
from ctrainer.schemas.message import Message
from ctrainer.schemas.training import (
    CommandRefused,
    Desired,
    SessionAdvanced,
    SessionState,
)
from tests.assigned import CONSTITUTION, assignment


def event(topic: str, data: Message) -> OutputRecord:
    cause = Record("training.requests", 0, 0, 1_700_000_000_000, None, None)
    return event_record(topic=topic, key="s", data=data, cause=cause, constitution=CONSTITUTION)


def assigned(desired: Desired = Desired.TRAINED) -> OutputRecord:
    return event("training.assignments", assignment(desired=desired))


def advanced(state: SessionState) -> OutputRecord:
    return event("training.progress", SessionAdvanced(session_id="s", tenant="acme", state=state, step=1, steps=40))


def after(*records: OutputRecord) -> Sessions:
    sessions = Sessions()
    for record in records:
        sessions = sessions.after(record)
    return sessions


def test_an_assigned_session_is_active_and_wanted_until_its_end() -> None:
    for going in (SessionState.ASSIGNED, SessionState.STARTED, SessionState.TRAINING):
        assert after(assigned(), advanced(going)).by_id["s"].is_wanted
    for end in (SessionState.COMPLETED, SessionState.HALTED, SessionState.FAILED, SessionState.REFUSED):
        assert not after(assigned(), advanced(end)).by_id["s"].is_active


def test_a_cancelled_session_is_no_longer_wanted_and_active_until_it_has_stopped() -> None:
    cancelled = after(assigned(), assigned(Desired.CANCELLED)).by_id["s"]
    assert (cancelled.is_wanted, cancelled.is_active) == (False, True)


def test_a_session_is_to_be_paused_until_the_trainer_has_said_so_and_is_active_all_the_time() -> None:
    asked = after(assigned(), advanced(SessionState.TRAINING), assigned(Desired.PAUSED)).by_id["s"]
    assert (asked.is_to_be_paused, asked.is_wanted, asked.takes_place) == (True, False, True)
    paused = after(assigned(Desired.PAUSED), advanced(SessionState.PAUSED)).by_id["s"]
    assert (paused.is_to_be_paused, paused.is_active, paused.takes_place) == (False, True, False)
    resumed = after(assigned(), advanced(SessionState.PAUSED)).by_id["s"]
    assert (resumed.is_to_be_paused, resumed.is_wanted, resumed.takes_place) == (False, True, True)


def test_a_final_state_is_never_left_again() -> None:
    sessions = after(advanced(SessionState.COMPLETED), assigned(), advanced(SessionState.TRAINING))
    assert sessions.by_id["s"].newest is not None
    assert sessions.by_id["s"].newest.state is SessionState.COMPLETED
    assert sessions.active() == ()


def test_the_order_in_which_the_two_topics_are_read_does_not_matter() -> None:
    assert after(assigned(), advanced(SessionState.STARTED)) == after(advanced(SessionState.STARTED), assigned())


def test_other_records_say_nothing_about_sessions() -> None:
    refused = CommandRefused(
        request_id="r", session_id="s", tenant="acme", command="x", reason="r", message="m", acceptable="a"
    )
    before = after(assigned())
    poison = OutputRecord("dead-letters", b"s", b"\xff", 1)
    assert before.after(event("training.progress", refused)) == before.after(poison) == before


def test_a_deleted_assignment_is_forgotten() -> None:
    assert after(assigned(), OutputRecord("training.assignments", b"s", None, 1)).by_id == {}
    assert after(OutputRecord("training.assignments", b"\xff", None, 1)).by_id == {}
