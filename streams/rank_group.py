"""The processes of one session on this machine: `python -m ctrainer.streams.rank_group --ranks N`.

It stands between a trainer and the first rank: standard input, SIGTERM and exit codes mean what they mean for
`ctrainer.streams.training_session`. Every process gets the environment that torchrun would give it. The first one that
ends takes the others with it, so a session has all its ranks or none, and goes on from its checkpoint.
"""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.streams.embedded.ports import free_port
from ctrainer.streams.logs import configure_logs
from ctrainer.streams.settings import Settings

_GRACE_SECONDS = 10.0
_LOG = logging.getLogger(__name__)


class GatheringError(ConstitutionalTrainerError):
    """Ranks that could not meet were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """How many ranks each of some machines has, which machine this is, and where they meet: host:port of the first."""

    ranks: int
    nodes: int = 1
    node: int = 0
    meet: str | None = None

    @classmethod
    def of(cls, *, ranks: int, nodes: int, node: int, meet: str | None, parallel_sessions: int) -> Self:
        """Return a gathering that can meet.

        Raises:
            GatheringError: several machines without a place to meet, or for several sessions at once.
        """
        if nodes > 1 and (meet is None or not meet.rpartition(":")[2].isdigit()):
            raise GatheringError(f"--meet: got {meet}, expected host:port of machine 0 for {nodes} machines")
        if not node < nodes:
            raise GatheringError(f"--node: got {node}, expected a number below {nodes}")
        if nodes > 1 and parallel_sessions > 1:
            raise GatheringError("--parallel-sessions: several machines train one session at a time")
        return cls(ranks=ranks, nodes=nodes, node=node, meet=meet)

    @classmethod
    def read(cls, arguments: list[str]) -> Self:
        """Read command-line arguments."""
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--ranks", type=int, required=True)
        parser.add_argument("--nodes", type=int, default=1)
        parser.add_argument("--node", type=int, default=0)
        parser.add_argument("--meet")
        return cls(**vars(parser.parse_args(arguments)))

    def program(self) -> list[str]:
        """Return the command line of a session's ranks on this machine."""
        return [sys.executable, "-m", "ctrainer.streams.rank_group", *self.arguments()]

    def arguments(self) -> list[str]:
        """Return the arguments that `read` reads."""
        numbers = [f"--ranks={self.ranks}", f"--nodes={self.nodes}", f"--node={self.node}"]
        return numbers if self.meet is None else [*numbers, f"--meet={self.meet}"]

    def environments(self) -> list[dict[str, str]]:
        """Return what torchrun would add to the environment of each rank of this machine.

        >>> [one["RANK"] for one in Gathering(ranks=2, nodes=2, node=1, meet="first:29500").environments()]
        ['2', '3']
        """
        host, _, port = (self.meet or f"127.0.0.1:{free_port()}").rpartition(":")
        shared = {
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
            "WORLD_SIZE": str(self.ranks * self.nodes),
            "LOCAL_WORLD_SIZE": str(self.ranks),
            "GROUP_RANK": str(self.node),
            "TORCHELASTIC_RUN_ID": "ctrainer",
        }
        return [
            {**shared, "LOCAL_RANK": str(local), "RANK": str(self.node * self.ranks + local)}
            for local in range(self.ranks)
        ]


class RankGroup:
    """The running ranks of this machine, the first of which decides how the group has ended."""

    def __init__(self, processes: list[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    @classmethod
    async def start(cls, gathering: Gathering, environment: Mapping[str, str]) -> "RankGroup":
        """Start every rank of this machine."""
        # As torchrun does: ranks that share a machine shall not each take all of its cores.
        kept = {"OMP_NUM_THREADS": "1", **environment} if gathering.ranks > 1 else dict(environment)
        return cls([await _start(kept | of_rank) for of_rank in gathering.environments()])

    async def tell(self, line: bytes) -> None:
        """Hand the first line of our standard input to the first rank."""
        stdin = self._processes[0].stdin
        if stdin is not None:
            with suppress(BrokenPipeError, ConnectionResetError):
                stdin.write(line)
                await stdin.drain()

    def hang_up(self) -> None:
        """Let the first rank know that its trainer is gone."""
        stdin = self._processes[0].stdin
        if stdin is not None:
            stdin.close()

    def terminate(self) -> None:
        """Ask the first rank to stop: it tells the others at the next step."""
        with suppress(ProcessLookupError):
            self._processes[0].send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait for the end of all ranks and return the status of the first one, or of the one that took it along.

        A rank that ends well before the first one leaves it to its work: evaluation is the first rank's alone.
        """
        running = {asyncio.create_task(process.wait()): process for process in self._processes}
        status = 0
        while running and status == 0 and self._processes[0].returncode is None:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            status = next((task.result() for task in done if task.result() != 0), 0)
            running = {task: process for task, process in running.items() if task not in done}
        if running:
            await asyncio.wait(running, timeout=_GRACE_SECONDS)
        first = self._processes[0].returncode
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        return status if first is None else first


async def _start(environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ctrainer.streams.training_session",
        env=dict(environment),
        stdin=asyncio.subprocess.PIPE,
    )


async def launch(gathering: Gathering, environment: Mapping[str, str]) -> int:
    """Run the ranks of this machine once; return the exit code."""
    group = await RankGroup.start(gathering, environment)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, group.terminate)
    relay = asyncio.create_task(_relay(group))
    try:
        return await group.ended()
    finally:
        relay.cancel()


async def _relay(group: RankGroup) -> None:
    """Hand on the assignment, and the end of standard input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await group.tell(line)
    group.hang_up()


def run_followers(settings: Settings, gathering: Gathering) -> None:
    """Take part in one session after the other, on a machine that does not lead, until SIGTERM."""
    configure_logs()
    asyncio.run(_follow(settings, gathering))


async def _follow(settings: Settings, gathering: Gathering) -> None:
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    end = asyncio.create_task(asked.wait())
    while not asked.is_set():
        group = await RankGroup.start(gathering, settings.environment())
        ended = asyncio.create_task(group.ended())
        await asyncio.wait([ended, end], return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            # The leader notices, and the session goes on from its checkpoint when all have met again.
            group.terminate()
        _LOG.info("ranks of machine %d ended with status %d", gathering.node, await ended)


def main() -> int:
    """Run the ranks that the command line names."""
    configure_logs()
    return asyncio.run(launch(Gathering.read(sys.argv[1:]), Settings.read().environment()))


if __name__ == "__main__":
    sys.exit(main())
