from collections.abc import Sequence
from random import Random

import pytest

from ctrainer.trainer.admission import Memory, Need, Room

NEEDS = {
    "small": Need(usual=2, least=2),
    "tiny": Need(usual=1, least=1),
    "big": Need(usual=7, least=7),
    "whole": Need(usual=10, least=10),
    "halved": Need(usual=14, least=9),
    "monster": Need(usual=20, least=11),
}
EMPTY = Room(total=10, free=10)


def memory(room: Room | None = EMPTY, *, young: Sequence[str] = ()) -> Memory:
    return Memory(room=room, needs=NEEDS, young=frozenset(young))


@pytest.mark.parametrize(
    ("waiting", "running", "start", "wait"),
    [
        (["small", "big"], [], ["small", "big"], []),
        (["big", "small", "tiny"], [], ["big", "small", "tiny"], []),
        (["big", "whole", "tiny"], [], ["big"], ["whole", "tiny"]),
        (["whole", "tiny"], ["small"], [], ["whole", "tiny"]),
        (["whole", "tiny"], [], ["whole"], ["tiny"]),
        (["tiny", "whole"], [], ["tiny"], ["whole"]),
        (["halved"], [], ["halved"], []),
        (["halved"], ["tiny"], [], ["halved"]),
        (["unknown"], ["whole"], ["unknown"], []),
        (["big", "unknown"], ["big"], [], ["big", "unknown"]),
        (["big"], ["unknown"], ["big"], []),
    ],
)
def test_the_oldest_start_as_far_as_they_fit_and_none_overtakes(
    waiting: list[str], running: list[str], start: list[str], wait: list[str]
) -> None:
    admission = memory().admit(waiting, running=running)
    assert (list(admission.start), list(admission.wait), admission.never) == (start, wait, ())


def test_a_session_that_can_never_fit_is_named_and_keeps_nobody_waiting() -> None:
    admission = memory().admit(["monster", "small"], running=["big"])
    assert (admission.never, admission.start, admission.wait) == (("monster",), ("small",), ())


def test_what_others_have_taken_is_left_to_them_while_one_of_ours_runs() -> None:
    assert memory(Room(total=10, free=1)).admit(["small"], running=["tiny"]).wait == ("small",)
    assert memory(Room(total=10, free=2)).admit(["small"], running=["tiny"]).start == ("small",)


def test_none_waits_for_others_when_none_of_ours_runs() -> None:
    admission = memory(Room(total=10, free=0)).admit(["whole", "tiny"], running=[])
    assert (admission.start, admission.wait) == (("whole",), ("tiny",))


def test_what_a_young_session_is_about_to_take_is_not_free() -> None:
    grown = Room(total=10, free=3)
    assert memory(grown).admit(["small"], running=["big"]).start == ("small",)
    assert memory(grown, young=["big"]).admit(["small"], running=["big"]).wait == ("small",)


def test_everybody_starts_where_the_memory_is_unknown() -> None:
    assert memory(None).admit(["monster", "whole"], running=["big"]).start == ("monster", "whole")


def test_every_session_starts_before_all_younger_ones_and_in_the_end() -> None:
    random = Random(7)
    for _ in range(200):
        queue = [random.choice(["small", "tiny", "big", "whole", "halved"]) + f" {number}" for number in range(12)]
        view = Memory(room=Room(total=10, free=4), needs={name: NEEDS[name.split()[0]] for name in queue})
        left, running, started = list(queue), list[str](), list[str]()
        while left:
            admission = view.admit(left, running=running)
            assert admission.start or running
            started += admission.start
            left = list(admission.wait)
            running += admission.start
            running.remove(random.choice(running))
        assert started == queue
