import asyncio
import signal
import sys

import pytest

from ctrainer.streams.rank_group import Gathering, GatheringError, RankGroup

WAITS = "import sys; sys.stdin.read()"
STOPS = (
    "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
)


def test_every_rank_gets_a_place_of_its_own_as_torchrun_would_give_it() -> None:
    first, second = Gathering(ranks=2).environments()
    assert (first["RANK"], first["LOCAL_RANK"], second["RANK"], second["LOCAL_RANK"]) == ("0", "0", "1", "1")
    assert first["WORLD_SIZE"] == "2"
    assert (first["MASTER_ADDR"], first["MASTER_PORT"]) == (second["MASTER_ADDR"], second["MASTER_PORT"])


def test_ranks_count_on_over_machines() -> None:
    (only,) = Gathering(ranks=1, nodes=3, node=2, meet="first:29500").environments()
    assert (only["RANK"], only["LOCAL_RANK"], only["WORLD_SIZE"]) == ("2", "0", "3")
    assert (only["MASTER_ADDR"], only["MASTER_PORT"]) == ("first", "29500")


def test_a_gathering_survives_the_command_line() -> None:
    for gathering in (Gathering(ranks=3), Gathering(ranks=2, nodes=2, node=1, meet="first:29500")):
        assert Gathering.read(gathering.arguments()) == gathering


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nodes": 2}, "--meet"),
        ({"nodes": 2, "meet": "first"}, "--meet"),
        ({"nodes": 2, "node": 2, "meet": "first:1"}, "--node"),
        ({"nodes": 2, "meet": "first:1", "parallel_sessions": 2}, "--parallel-sessions"),
    ],
)
def test_ranks_that_could_not_meet_are_refused(wrong: dict[str, object], message: str) -> None:
    options: dict[str, object] = {"ranks": 1, "nodes": 1, "node": 0, "meet": None, "parallel_sessions": 1, **wrong}
    with pytest.raises(GatheringError, match=message):
        Gathering.of(**options)  # type: ignore[arg-type] # the cases are spelt out above


async def group_of(*programs: str) -> RankGroup:
    return RankGroup(
        [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            for program in programs
        ]
    )


@pytest.mark.parametrize(
    ("programs", "status"),
    [
        pytest.param(("pass", "pass"), 0, id="all end well"),
        pytest.param((WAITS, "raise SystemExit(3)"), 3, id="a follower dies"),
        pytest.param(("raise SystemExit(75)", WAITS), 75, id="the leader dies"),
        pytest.param(("pass", WAITS), 0, id="the leader ends well and a follower hangs"),
    ],
)
async def test_the_first_end_that_matters_ends_all(
    monkeypatch: pytest.MonkeyPatch, programs: tuple[str, ...], status: int
) -> None:
    monkeypatch.setattr("ctrainer.streams.rank_group._GRACE_SECONDS", 0.1)
    group = await group_of(*programs)
    assert await asyncio.wait_for(group.ended(), 60) == status
    assert all(process.returncode is not None for process in group._processes)


async def test_the_leader_goes_on_when_followers_end_well() -> None:
    group = await group_of("import sys; sys.exit(len(sys.stdin.read()))", "pass")
    ended = asyncio.create_task(group.ended())
    await group._processes[1].wait()
    await group.tell(b"word\n")
    group.hang_up()
    assert await asyncio.wait_for(ended, 60) == len("word\n")


async def test_only_the_leader_is_asked_to_stop() -> None:
    group = await group_of(STOPS, WAITS)
    stdout = group._processes[0].stdout
    assert stdout is not None
    await stdout.readline()
    group.terminate()
    assert await asyncio.wait_for(group._processes[0].wait(), 60) == 0
    assert group._processes[1].returncode is None
    group._processes[1].send_signal(signal.SIGKILL)
    await group._processes[1].wait()
