from pathlib import Path

import pytest

from ctrainer.trainer.abandoned import Leftover, Owner, Retention, abandoned

HOUR, DAY = 3_600.0, 86_400.0


def leftover(name: str, owner: Owner, idle: float, *, quarantined: bool = False) -> Leftover:
    return Leftover(path=Path(name), owner=owner, idle_seconds=idle, quarantined=quarantined)


@pytest.mark.parametrize("quarantined", [False, True])
def test_nothing_of_an_active_session_ever_goes(quarantined: bool) -> None:  # noqa: FBT001 - a case of the test
    assert abandoned([leftover("a", Owner.ACTIVE, 1e12, quarantined=quarantined)], Retention()) == ()


@pytest.mark.parametrize(
    ("owner", "quarantined", "limit"),
    [(Owner.ENDED, False, HOUR), (Owner.UNKNOWN, False, 7 * DAY), (Owner.ENDED, True, 30 * DAY)],
)
def test_what_is_abandoned_stays_for_its_time(owner: Owner, quarantined: bool, limit: float) -> None:  # noqa: FBT001 - as above
    assert abandoned([leftover("a", owner, limit - 1, quarantined=quarantined)], Retention()) == ()
    assert len(abandoned([leftover("a", owner, limit + 1, quarantined=quarantined)], Retention())) == 1


def test_one_pass_is_bounded_and_takes_the_longest_idle_first() -> None:
    found = [leftover(str(hours), Owner.ENDED, hours * HOUR) for hours in (2, 5, 3, 4)]
    assert [gone.path.name for gone in abandoned(found, Retention(at_most=2))] == ["5", "4"]
