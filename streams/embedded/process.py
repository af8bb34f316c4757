"""A detached server process that is found again by its pid file, and never confused with another one."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrainer.streams.embedded.errors import ServiceError

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachedProcess:
    """A server of `folder`, which holds its pid file and its log."""

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """Where the server writes its output."""
        return self.folder / f"{self.name}.log"

    def pid(self) -> int | None:
        """Return the pid of the running server, or None; a pid that now belongs to another program is not it."""
        try:
            noted, started = self._pid_file.read_text().split()
            pid = int(noted)
        except (OSError, ValueError):
            return None
        return pid if started_at(pid) == started else None

    def start(self, command: Sequence[str], *, ready: Callable[[], bool], within_seconds: float) -> None:
        """Start the server in a session of its own and return when `ready` says that it answers.

        Raises:
            ServiceError: it ended or did not answer in time, and was killed; the message names its log.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own server
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.folder
            )
        self._pid_file.write_text(f"{process.pid} {started_at(process.pid)}")
        if not self.becomes(ready, within_seconds=within_seconds):
            self.kill()
            raise ServiceError(f"{self.name} ended or did not answer within {within_seconds:.0f} s; see {self.log}")

    def becomes(self, ready: Callable[[], bool], *, within_seconds: float) -> bool:
        """Wait until `ready`, and return False if the server does not run, ends, or takes too long."""
        deadline = time.monotonic() + within_seconds
        while (pid := self.pid()) is not None and time.monotonic() < deadline:
            if ready():
                return True
            _reap(pid)
            time.sleep(_POLL_SECONDS)
        return False

    def stop(self, *, within_seconds: float = 30.0) -> None:
        """End the server gently; what does not end in time is killed. Does nothing when it does not run."""
        self._end(signal.SIGTERM, within_seconds)
        self._end(signal.SIGKILL, within_seconds)
        self._pid_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self._end(signal.SIGKILL, 10.0)

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name}.pid"

    def _end(self, with_signal: signal.Signals, within_seconds: float) -> None:
        pid = self.pid()
        if pid is None:
            return
        os.kill(pid, with_signal)
        deadline = time.monotonic() + within_seconds
        while self.pid() is not None and time.monotonic() < deadline:
            _reap(pid)
            time.sleep(_POLL_SECONDS)


def started_at(pid: int) -> str | None:
    """Return when a process was started (kernel ticks or a date), or None where there is none or only its remains.

    A process whose first thread is gone while others still hold its sockets is not yet remains.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _started_at_by_ps(pid)
    state, threads, started = fields[0], int(fields[17]), fields[19]
    return None if state in "ZX" and threads <= 1 else started


def _started_at_by_ps(pid: int) -> str | None:
    """Ask `ps` where there is no /proc."""
    if Path("/proc/self/stat").exists():
        return None
    answer = subprocess.run(  # noqa: S603 - a number is all that varies
        ["ps", "-o", "lstart=", "-p", str(pid)],  # noqa: S607 - found on the path on every such system
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip().replace(" ", "_") or None


def _reap(pid: int) -> None:
    """Collect the exit status if the process is our own child, so that it does not linger as a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
