"""Keeps one child process alive for as long as its owner wants it, and ends it gently."""

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mode import Service

from ctrainer.schemas.errors import ConstitutionalTrainerError

_LOG = logging.getLogger(__name__)


class ChildFailedError(ConstitutionalTrainerError):
    """A child process died more often than its owner allows. The message names its log file."""


class ChildProcess(Service):
    """A program that is started again whenever it dies, at most `restarts` times, and ended with SIGTERM on stop.

    Its output goes to `log`. `failed` is set when it died once too often.
    """

    def __init__(
        self, *, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path, restarts: int = 10
    ) -> None:
        super().__init__()
        self.name = name
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._command = command
        self._environment = environment
        self._log_file = log
        self._restarts = restarts
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the present incarnation."""
        return self._process.pid if self._process else None

    async def on_start(self) -> None:
        """Start the first incarnation."""
        self._process = await self._spawn()

    @Service.task
    async def _watch(self) -> None:
        for _ in range(self._restarts):
            status = await self._exit_status()
            if self.should_stop:
                return
            _LOG.warning("%s ended with status %s; starting it again", self.name, status)
            self._process = await self._spawn()
        status = await self._exit_status()
        if not self.should_stop:
            message = f"{self.name} ended with status {status} again; see {self._log_file}"
            self.failed.set_exception(ChildFailedError(message))

    async def on_stop(self) -> None:
        """Ask the child to end, wait for it, and end it hard if it takes longer than a minute."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 60)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _exit_status(self) -> int:
        if self._process is None:
            raise RuntimeError("the child was never started")
        return await self._process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._command, env=dict(self._environment), stdout=log, stderr=log, stdin=asyncio.subprocess.DEVNULL
            )
