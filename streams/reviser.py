"""The model that rewrites, in a process of its own: long work never runs on the event loop of a worker."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, TypeVar

import orjson
from mode import Service

from ctrainer.agents.revision import ReviserLostError, ReviserUnavailableError
from ctrainer.trainer.revision import Draft, Rewriting

_START_SECONDS = 600.0
_LONGEST_WAIT_SECONDS = 60.0
_LINE_BYTES = 16 * 1024 * 1024
_MOST = 1.0 + 1e-6
"""A cosine, as far as its last digits are right."""
_LOG = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Condition(Enum):
    """How the process is."""

    IDLE = "idle"
    STARTING = "starting"
    UP = "up"
    DOWN = "down"


class ProcessReviser(Service):
    """Asks a child process, one question at a time. It is started by the first question and again after it was lost.

    A child that cannot start is left alone for a while, longer each time. A child that dies or takes longer than
    `deadline_seconds` over a question is ended: another one answers the same question in the same way.
    """

    def __init__(
        self, *, name: str, command: Sequence[str], environment: Mapping[str, str], deadline_seconds: float = 240.0
    ) -> None:
        super().__init__()
        self.name = name
        self.condition = Condition.IDLE
        self.losses = 0
        self._command = command
        self._environment = environment
        self._deadline = deadline_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._failures = 0
        self._not_before = 0.0
        self._one_at_a_time = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process id of the child, None where none was started yet."""
        return self._process.pid if self._process else None

    async def rewrite(self, drafts: Sequence[Draft]) -> list[Rewriting]:
        """Return a rewriting of each draft, in order.

        Raises:
            ReviserLostError: the child was lost over these drafts.
            ReviserUnavailableError: there is no child to ask.
        """
        return await self._ask({"drafts": drafts}, _rewritings)

    async def similarities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Return how alike each two texts are.

        Raises:
            ReviserLostError: the child was lost over these texts.
            ReviserUnavailableError: there is no child to ask.
        """
        return await self._ask({"pairs": pairs}, _similarities)

    async def on_stop(self) -> None:
        """End the child."""
        await self._end()

    async def _ask(self, question: Mapping[str, Sequence[Any]], read: Callable[[Any], list[Answer]]) -> list[Answer]:
        (asked,) = question.values()
        line = orjson.dumps(question, default=list)
        async with self._one_at_a_time:
            process = await self._running()
            is_answered = False
            try:
                said = await asyncio.wait_for(_exchange(process, line), self._deadline)
                answers = _one_each(read(said), len(asked))
                is_answered = True
            except (OSError, TimeoutError, ValueError) as error:
                raise ReviserLostError(f"the model was lost over a question: {type(error).__name__}") from error
            finally:
                # Also when the one who asked has gone: an answer that nobody took would be taken for the next one.
                if not is_answered:
                    self.losses += 1
                    self.condition = Condition.DOWN
                    await self._end()
        return answers

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        if time.monotonic() < self._not_before:
            raise ReviserUnavailableError(f"model {self.name}: could not be started; trying again later")
        self.condition = Condition.STARTING
        _LOG.info("starting the process of the model that rewrites")
        try:
            self._process = await self._spawn()
            await asyncio.wait_for(_line(self._process), _START_SECONDS)
            self.condition = Condition.UP
        except (OSError, TimeoutError, ValueError) as error:
            self._failures += 1
            self._not_before = time.monotonic() + min(_LONGEST_WAIT_SECONDS, 2.0**self._failures)
            raise ReviserUnavailableError(f"model {self.name}: its process does not start") from error
        finally:
            # Also when the one who asked has gone: that it is ready would be taken for the next answer.
            if self.condition is not Condition.UP:
                self.condition = Condition.DOWN
                await self._end()
        self._failures = 0
        return self._process

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            env=dict(self._environment),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
        )

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _one_each(answers: list[Answer], count: int) -> list[Answer]:
    if len(answers) != count:
        raise ValueError(f"got {len(answers)} answers, expected {count}")
    return answers


def _rewritings(answer: Any) -> list[Rewriting]:
    """Return the rewritings of an answer.

    Raises:
        ValueError: it has none.
    """
    match answer:
        case {"rewritings": [*made]}:
            return list(map(_rewriting, made))
    raise ValueError("got something else, expected rewritings")


def _rewriting(made: Any) -> Rewriting:
    match made:
        case [str(text), bool(is_whole)]:
            return Rewriting(text, is_whole)
    raise ValueError("got something else, expected a text and whether it is whole")


def _similarities(answer: Any) -> list[float]:
    """Return the similarities of an answer.

    Raises:
        ValueError: it has none, or one that is no cosine.
    """
    match answer:
        case {"similarities": [*told]} if all(isinstance(one, float) and -_MOST <= one <= _MOST for one in told):
            return told
    raise ValueError("got something else, expected similarities")


async def _exchange(process: asyncio.subprocess.Process, question: bytes) -> Any:
    if process.stdin is None:
        raise RuntimeError("the child was started without a pipe")
    process.stdin.write(question + b"\n")
    await process.stdin.drain()
    return await _line(process)


async def _line(process: asyncio.subprocess.Process) -> Any:
    """Return what the child says next.

    Raises:
        ConnectionError: it says no more.
        ValueError: it says what is no JSON.
    """
    if process.stdout is None:
        raise RuntimeError("the child was started without a pipe")
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        raise ConnectionError("the child has ended")
    return orjson.loads(line)
