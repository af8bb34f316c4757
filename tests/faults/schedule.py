"""A random schedule of faults over two workers that are started again whenever they end."""

import asyncio
import signal
from collections import deque
from collections.abc import Iterator
from random import Random

from tests.faults.stream import Stream
from tests.faults.worker_process import WorkerProcess

KINDS = ("raise", "SIGKILL", "SIGTERM", "SIGSTOP")
POINTS = ("after-read", "after-decide", "after-produce", "before-commit")
_DEADLY = ("SIGKILL", "SIGTERM")
_BATCH = 5
_AHEAD = 400


def draw_faults(random: Random, count: int) -> deque[str]:
    """Return that many faults, as workers take them."""
    return deque(f"{random.choice(KINDS)}:{random.choice(POINTS)}:{random.randint(1, 8)}" for _ in range(count))


class Schedule:
    """Carries out faults in two slots at once while records keep coming."""

    def __init__(self, stream: Stream, faults: deque[str]) -> None:
        self.done: list[str] = []
        self._stream = stream
        self._faults = faults
        self._asleep: list[WorkerProcess] = []

    async def run(self) -> None:
        """Return when every fault was done and all that was sent came through."""
        feed = asyncio.create_task(self._feed())
        async with asyncio.TaskGroup() as slots:
            slots.create_task(self._slot())
            slots.create_task(self._slot())
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)
        await self._stream.until_done()

    async def _feed(self) -> None:
        """Keep the stream a little ahead of its outputs."""
        while True:
            await self._stream.until(lambda: self._stream.expected - self._stream.arrived < _AHEAD)
            await self._stream.send(100, poison_every=97)

    async def _slot(self) -> None:
        """Start one worker after another until no fault is left; the last one stays."""
        while self._faults:
            await self._live(list(self._one_life()))
        await self._stream.worker(max_records=_BATCH)

    def _one_life(self) -> Iterator[str]:
        """Yield the faults of one worker: those it survives, and one that it does not."""
        while self._faults:
            fault = self._faults.popleft()
            yield fault
            if fault.startswith(_DEADLY):
                return

    async def _live(self, faults: list[str]) -> None:
        worker = await self._stream.worker(*faults, max_records=_BATCH)
        for number, fault in enumerate(faults, start=1):
            await self._stream.until(lambda count=number: len(worker.faults) >= count)  # type: ignore[misc]
            self.done.append(fault)
            if fault.startswith("SIGSTOP"):
                await self._sleep(worker)
        if not faults[-1].startswith(_DEADLY):
            await worker.kill()
        await worker.ended()

    async def _sleep(self, worker: WorkerProcess) -> None:
        """Let a stopped worker lie until another one took over a partition; never let both lie for ever."""
        if self._asleep:
            self._asleep.pop().send(signal.SIGCONT)
        before = self._takeovers()
        self._asleep.append(worker)
        await self._stream.until(lambda: worker not in self._asleep or self._takeovers() > before)
        if worker in self._asleep:
            self._asleep.remove(worker)
            worker.send(signal.SIGCONT)

    def _takeovers(self) -> int:
        return sum(worker.takeovers for worker in self._stream.workers)
