"""A faulty worker as a process, as a test sees it: what it said, signals to it, and its end."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = Path(__file__).with_name("faulty_worker.py")


class WorkerProcess:
    """A running `faulty_worker.py`."""

    def __init__(self, process: asyncio.subprocess.Process, heard: asyncio.Condition) -> None:
        self._process = process
        self._heard = heard
        self.said: list[str] = []
        self.has_ended = False
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, arguments: Sequence[str], *, log: Path, heard: asyncio.Condition) -> "WorkerProcess":
        """Start a worker that appends its log to a file; `heard` is notified whenever it says something or ends."""
        with log.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, _PROGRAM, *arguments, stdout=asyncio.subprocess.PIPE, stderr=file
            )
        return cls(process, heard)

    @property
    def faults(self) -> list[str]:
        """The faults it has done so far, as `KIND POINT PARTITION`."""
        return [line.removeprefix("fault ") for line in self.said if line.startswith("fault ")]

    @property
    def takeovers(self) -> int:
        """How often it took over a partition."""
        return sum(line.startswith("took-over ") for line in self.said)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end and return its exit status; negative is the signal that killed it."""
        await self._listener
        return await self._process.wait()

    async def stop(self) -> int:
        """Ask it to end (waking it if it was stopped), wait, and return its exit status."""
        if self._process.returncode is None:
            self.send(signal.SIGTERM)
            self.send(signal.SIGCONT)
        return await self.ended()

    async def kill(self) -> None:
        """End it at once if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._heard:
                self.said.append(line.decode().strip())
                self._heard.notify_all()
        async with self._heard:
            self.has_ended = True
            self._heard.notify_all()
