import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ctrainer.streams.child_process import ChildFailedError, ChildProcess

COUNTING = "import sys; open(sys.argv[1], 'a').write('x'); raise SystemExit(3)"
WAITING = "import signal; print('up', flush=True); signal.pause()"


def child(folder: Path, *command: str, restarts: int) -> ChildProcess:
    return ChildProcess(
        name="child", command=[sys.executable, "-c", *command], environment={}, log=folder / "log", restarts=restarts
    )


async def test_a_child_that_keeps_dying_fails_after_its_restarts_and_names_its_log(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    dying = child(tmp_path, COUNTING, str(starts), restarts=2)
    async with dying:
        with pytest.raises(ChildFailedError, match=r"status 3 again.*log"):
            await asyncio.wait_for(dying.failed, 60)
    assert starts.read_text() == "xxx"


async def test_a_killed_child_is_started_again_and_ends_with_its_owner(tmp_path: Path) -> None:
    living = child(tmp_path, WAITING, restarts=2)
    log = tmp_path / "log"
    async with living, asyncio.timeout(60):
        await said_up(log, times=1)
        first = living.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await said_up(log, times=2)
        second = living.pid
        assert second not in {None, first}
    assert not Path(f"/proc/{second}").exists()
    assert not living.failed.done()


async def said_up(log: Path, *, times: int) -> None:
    while log.read_text().count("up") < times:  # noqa: ASYNC110 - another process writes the log
        await asyncio.sleep(0.02)
