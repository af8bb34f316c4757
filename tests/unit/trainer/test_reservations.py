from threading import Event

import pytest

from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.errors import CheckpointNotSavedError
from ctrainer.trainer.ledger import Granted
from ctrainer.trainer.reservations import Reservations

SECONDS = 10


class Ledger:
    """Grants what it is asked for as soon as it may, and remembers it."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.may_answer = Event()
        self.was_asked = Event()
        self.may_answer.set()

    def reserve(self, first_step: int, steps: int) -> Granted:
        self.asked.append((first_step, steps))
        self.was_asked.set()
        assert self.may_answer.wait(SECONDS)
        return Granted(epsilon=float(first_step), rdp=NOTHING, alert=False)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def room() -> None:
    """There is room."""


def no_room() -> None:
    raise CheckpointNotSavedError("made up")


def test_the_next_block_is_asked_for_while_the_caller_goes_on(ledger: Ledger) -> None:
    with Reservations(ledger.reserve, ensure_room=room) as reservations:
        reservations.take(0, 8)
        ledger.was_asked.clear()
        ledger.may_answer.clear()
        reservations.ask_ahead(8, 8, seconds_left=0.0)
        assert ledger.was_asked.wait(SECONDS)
        ledger.may_answer.set()
        answer = reservations.take(8, 8)
    assert ledger.asked == [(0, 8), (8, 8)]
    assert answer == Granted(epsilon=8.0, rdp=NOTHING, alert=False)


def test_a_block_is_asked_for_no_earlier_than_it_must_be_and_only_once(ledger: Ledger) -> None:
    with Reservations(ledger.reserve, ensure_room=room) as reservations:
        reservations.take(0, 8)
        reservations.ask_ahead(8, 8, seconds_left=3_600.0)
        assert ledger.asked == [(0, 8)]
        reservations.ask_ahead(8, 8, seconds_left=0.0)
        reservations.ask_ahead(8, 8, seconds_left=0.0)
        reservations.take(8, 8)
    assert ledger.asked == [(0, 8), (8, 8)]


def test_what_was_asked_ahead_is_known_at_the_end_although_nobody_took_it(ledger: Ledger) -> None:
    answered: list[int] = []

    def reserve(first_step: int, steps: int) -> Granted:
        answer = ledger.reserve(first_step, steps)
        answered.append(first_step)
        return answer

    with Reservations(reserve, ensure_room=room) as reservations:
        reservations.ask_ahead(8, 8, seconds_left=0.0)
    assert answered == [8]


def test_nothing_is_asked_for_where_its_result_could_not_be_saved(ledger: Ledger) -> None:
    with Reservations(ledger.reserve, ensure_room=no_room) as reservations:
        reservations.ask_ahead(0, 8, seconds_left=0.0)
        with pytest.raises(CheckpointNotSavedError):
            reservations.take(0, 8)
    assert ledger.asked == []
