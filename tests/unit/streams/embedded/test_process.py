import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrainer.streams.embedded.errors import ServiceError
from ctrainer.streams.embedded.process import DetachedProcess, started_at

WAITS = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
IGNORES_SIGTERM = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()",
]
FIRST_THREAD_ENDS = [
    sys.executable,
    "-c",
    """
import ctypes, threading
threading.Thread(target=threading.Event().wait).start()
print("up", flush=True)
ctypes.CDLL(None).pthread_exit(None)
""",
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DetachedProcess]:
    server = DetachedProcess(name="server", folder=tmp_path / "server")
    yield server
    server.kill()


def start(server: DetachedProcess, command: list[str]) -> int:
    server.start(command, ready=lambda: "up" in server.log.read_text(), within_seconds=20)
    pid = server.pid()
    assert pid is not None
    return pid


def test_started_server_is_found_again_by_its_folder_and_lives_in_a_session_of_its_own(server: DetachedProcess) -> None:
    pid = start(server, WAITS)
    assert DetachedProcess(name="server", folder=server.folder).pid() == pid
    assert os.getsid(pid) == pid


def test_stopped_server_is_gone_and_leaves_no_pid_file(server: DetachedProcess) -> None:
    pid = start(server, WAITS)
    server.stop()
    assert server.pid() is None
    assert started_at(pid) is None
    assert not list(server.folder.glob("*.pid"))


def test_server_that_ignores_the_request_to_end_is_killed(server: DetachedProcess) -> None:
    pid = start(server, IGNORES_SIGTERM)
    server.stop(within_seconds=0.2)
    assert started_at(pid) is None


def test_stopping_what_never_ran_does_nothing(server: DetachedProcess) -> None:
    server.stop()
    assert server.pid() is None


def test_pid_file_of_a_killed_server_does_not_count_as_running(server: DetachedProcess) -> None:
    start(server, WAITS)
    server.kill()
    assert (server.folder / "server.pid").exists()
    assert server.pid() is None


def test_pid_that_now_belongs_to_another_program_is_neither_found_nor_stopped(server: DetachedProcess) -> None:
    with subprocess.Popen(WAITS, stdout=subprocess.DEVNULL) as stranger:
        server.folder.mkdir()
        (server.folder / "server.pid").write_text(f"{stranger.pid} {int(str(started_at(stranger.pid))) - 1}")
        server.stop()
        assert server.pid() is None
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize("content", ["", "12", "twelve 99", "12 99 7"])
def test_damaged_pid_file_means_not_running(server: DetachedProcess, content: str) -> None:
    server.folder.mkdir()
    (server.folder / "server.pid").write_text(content)
    assert server.pid() is None


def test_server_whose_first_thread_ended_still_runs(server: DetachedProcess) -> None:
    pid = start(server, FIRST_THREAD_ENDS)
    stat = Path(f"/proc/{pid}/stat")
    assert server.becomes(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", within_seconds=20)
    assert server.pid() == pid
    server.kill()
    assert server.pid() is None


def test_server_that_ends_at_once_is_an_error_that_names_its_log(server: DetachedProcess) -> None:
    with pytest.raises(ServiceError, match=str(server.log)):
        server.start([sys.executable, "-c", "raise SystemExit('no such port')"], ready=lambda: False, within_seconds=60)
    assert "no such port" in server.log.read_text()


def test_server_that_never_answers_is_an_error_and_is_not_left_running(server: DetachedProcess) -> None:
    with pytest.raises(ServiceError, match="did not answer"):
        server.start(WAITS, ready=lambda: False, within_seconds=0.3)
    assert server.pid() is None


def test_waiting_for_an_answer_ends_when_the_server_dies(server: DetachedProcess) -> None:
    start(server, WAITS)
    killer = threading.Timer(0.2, server.kill)
    killer.start()
    assert not server.becomes(lambda: False, within_seconds=60)
    killer.join()
