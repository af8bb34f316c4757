from io import StringIO

import pytest
from rich.console import Console

from ctrainer.agents.events import event_record
from ctrainer.agents.records import Record
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import Accountant, Adjacency, PrivacyGuarantee, PrivacyUnit
from ctrainer.schemas.training import CommandRefused, SessionAdvanced, SessionProgressed, SessionState
from ctrainer.streams.commands.sessions import news_of
from ctrainer.streams.session_bars import SessionBars

SPENT = PrivacyGuarantee(
    epsilon=1.25, delta=1e-5, unit=PrivacyUnit.RECORD, adjacency=Adjacency.ADD_REMOVE, accountant=Accountant.RDP
)
LIVE = SessionProgressed(
    session_id="0123456789", tenant="acme", step=13, steps=40, spent=SPENT, steps_per_second=0.5, seconds_left=54.0
)
ADVANCED = SessionAdvanced(session_id="0123456789", tenant="acme", state=SessionState.TRAINING, step=8, steps=40)
REFUSED = CommandRefused(
    request_id="r", session_id="0123456789", tenant="acme", command="x", reason="r", message="m", acceptable="a"
)


def shown(*news: SessionAdvanced | SessionProgressed) -> str:
    screen = StringIO()
    with SessionBars(Console(file=screen, width=160)) as bars:
        for one in news:
            bars.show(one)
    return screen.getvalue()


def test_a_bar_shows_state_steps_speed_time_left_and_what_was_spent() -> None:
    screen = shown(ADVANCED, LIVE)
    for part in ("acme 01234567", "training", "13/40", "0.50 steps/s", "0:00:54 left", "epsilon 1.250"):
        assert part in screen


def test_each_session_has_one_bar_and_an_ended_one_says_why() -> None:
    ended = ADVANCED.model_copy(update={"session_id": "other", "state": SessionState.HALTED, "reason": "exhausted"})
    lines = shown(ADVANCED, ended, LIVE).strip().splitlines()
    assert len(lines) == 2
    assert "halted" in lines[1]
    assert "exhausted" in lines[1]


@pytest.mark.parametrize(("data", "news"), [(ADVANCED, ADVANCED), (LIVE, LIVE), (REFUSED, None)])
def test_only_what_tells_how_far_a_session_is_is_news(data: Message, news: Message | None) -> None:
    cause = Record("sessions/s", 0, 1, 1_700_000_000_000, None, None)
    reference = ConstitutionReference(hash="h", digest="d")
    output = event_record(topic="training.progress", key="s", data=data, cause=cause, constitution=reference)
    record = Record("training.progress", 0, 1, 1, output.key, output.value)
    assert news_of(record) == news
