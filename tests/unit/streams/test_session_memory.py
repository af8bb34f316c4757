import pytest

from ctrainer.schemas.training import OptimizerSettings, TrainingAssignment
from ctrainer.streams.session_memory import SessionMemory
from ctrainer.trainer.admission import Memory, Room
from tests.assigned import assignment, request
from tests.fixed_memory import FixedMemory

GIB = 1024**3


def session(name: str, *, max_tokens: int = 128, model: str = "SmolLM2-135M-Instruct") -> TrainingAssignment:
    asked = request(base_model=model, optimizer=OptimizerSettings(max_tokens=max_tokens))
    return assignment(name, request=asked)


def look(room: Room | None, *waiting: TrainingAssignment, ranks: int = 1) -> Memory:
    return SessionMemory(device=FixedMemory(room), ranks=ranks).look(waiting, (), frozenset())


def test_the_device_is_not_asked_while_nobody_waits() -> None:
    memory = SessionMemory(device=FixedMemory(Room(total=1, free=1)))
    assert memory.look((), (session("a"),), frozenset({"a"})) == Memory()


def test_nothing_is_needed_of_a_device_that_does_not_tell() -> None:
    assert look(None, session("a")) == Memory()


def test_a_model_of_unknown_size_has_no_need() -> None:
    assert look(Room(total=1, free=1), session("a", model="acme/never-downloaded")).needs == {}


def test_the_needs_of_all_who_wait_or_run_are_known() -> None:
    memory = SessionMemory(device=FixedMemory(Room(total=8, free=8)))
    seen = memory.look((session("a"),), (session("b", max_tokens=512),), frozenset({"b"}))
    assert seen.needs["b"].usual > seen.needs["a"].usual > 2 * GIB
    assert seen.young == {"b"}


def test_only_a_gpu_lets_a_session_do_with_less_than_usual() -> None:
    on_gpu = look(Room(total=8, free=8, halves=True), session("a", max_tokens=1_024)).needs["a"]
    on_cpu = look(Room(total=8, free=8), session("a", max_tokens=1_024)).needs["a"]
    assert on_gpu.least < on_gpu.usual
    assert on_cpu.least == on_cpu.usual


def test_ranks_share_the_memory_of_a_machine_and_each_has_a_gpu_of_its_own() -> None:
    one, two = (look(Room(total=8, free=8), session("a"), ranks=ranks).needs["a"].usual for ranks in (1, 2))
    assert two == 2 * one
    gpu = Room(total=8, free=8, halves=True)
    one, two = (look(gpu, session("a"), ranks=ranks).needs["a"].usual for ranks in (1, 2))
    assert two == one


@pytest.mark.parametrize(
    ("total", "advice"),
    [(4 * GIB, "max_tokens of at most "), (GIB, "a smaller base model, or a trainer with more memory")],
)
def test_a_misfit_is_told_what_it_needs_and_what_would_fit(total: int, advice: str) -> None:
    large, room = session("a", max_tokens=2_048), Room(total=total, free=total)
    message = SessionMemory(device=FixedMemory(room)).misfit(large, look(room, large))
    assert f"device has {total / GIB:.1f} GiB; {advice}" in message


def test_what_would_fit_does() -> None:
    room = Room(total=4 * GIB, free=4 * GIB)
    large = session("a", max_tokens=2_048)
    message = SessionMemory(device=FixedMemory(room)).misfit(large, look(room, large))
    tokens = int(message.partition("at most ")[2].split()[0])
    fitting = look(room, session("b", max_tokens=tokens))
    assert fitting.admit(["b"], running=()).start == ("b",)


def test_who_waits_is_told_what_is_free() -> None:
    one, room = session("a"), Room(total=8 * GIB, free=GIB)
    message = SessionMemory(device=FixedMemory(room)).wait(one, look(room, one))
    assert "1.0 GiB of 8.0 GiB are free" in message
