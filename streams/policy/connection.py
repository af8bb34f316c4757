"""Questions to a policy engine or a guard model over kept HTTP connections.

With a deadline, a bound on their number, and a breaker.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from ssl import SSLContext, create_default_context
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import orjson

from ctrainer.agents.compliance.policy import PolicyUnavailableError
from ctrainer.streams.latency import Latency
from ctrainer.streams.policy.circuit_breaker import CircuitBreaker
from ctrainer.streams.policy.http_connection import Answer, AnswerTooLongError, HttpConnection, UnheardError

_IDLE_SECONDS = 60.0
"""A connection that was not used for so long may have been forgotten on its way."""
_REFUSALS = frozenset({400, 413, 422})
"""Statuses that are about the question: the same one would be refused again."""


class QuestionRefusedError(PolicyUnavailableError):
    """The engine answers, but not this question."""


class EngineConnection:
    """Connections to one engine. `failures` counts them by kind; `latency` holds how long answers took.

    With `tls` only what it trusts is believed to be the engine, else what this machine trusts.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "policy engine",
        deadline_seconds: float,
        connections: int,
        token: str | None = None,
        tls: SSLContext | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.failures: Counter[str] = Counter()
        self.latency = Latency()
        self.breaker = breaker or CircuitBreaker()
        self._name = name
        self._deadline = deadline_seconds
        self._free = asyncio.Semaphore(connections)
        self._idle: deque[tuple[float, HttpConnection]] = deque()
        place = urlsplit(url)
        self._host = place.hostname or ""
        self._port = place.port or (443 if place.scheme == "https" else 80)
        self._tls = (tls or create_default_context()) if place.scheme == "https" else None
        self._prefix = place.path.rstrip("/")
        # An answer is never compressed: it could be a thousand times as long as what comes over the wire.
        fixed = {
            "host": place.netloc,
            "user-agent": "constitutional-trainer",
            "accept-encoding": "identity",
            "content-type": "application/json",
        }
        headers = fixed | ({"authorization": f"Bearer {token}"} if token else {})
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    async def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def ask(self, path: str, question: Mapping[str, Any]) -> Any:
        """Return the JSON value that answers a question. The deadline runs from when a connection is free for it.

        Raises:
            QuestionRefusedError: a status that says that the question is a wrong one.
            PolicyUnavailableError: no answer in time, another status than 200, or no JSON.
        """
        async with self._free:
            return await self._ask(path, question)

    async def _ask(self, path: str, question: Mapping[str, Any]) -> Any:
        if not self.breaker.admits():
            raise self._failure("circuit-open")
        started = perf_counter()
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._exchange(path, orjson.dumps(question))
        except TimeoutError as error:
            self.breaker.failed()
            raise self._failure("deadline") from error
        except AnswerTooLongError as error:
            self.breaker.failed()
            raise self._failure("too-long") from error
        except OSError as error:
            self.breaker.failed()
            raise self._failure("connection") from error
        except QuestionRefusedError:
            self.breaker.succeeded()
            raise
        except PolicyUnavailableError:
            self.breaker.failed()
            raise
        self.breaker.succeeded()
        self.latency.observe(perf_counter() - started)
        return answer

    async def _exchange(self, path: str, body: bytes) -> Any:
        head = f"POST {self._prefix}{path} HTTP/1.1\r\n{self._headers}content-length: {len(body)}\r\n\r\n"
        answer = await self._answer(head.encode("ascii") + body)
        if answer.status != 200:  # noqa: PLR2004 - OK
            error = QuestionRefusedError if answer.status in _REFUSALS else PolicyUnavailableError
            raise self._failure(f"status-{answer.status // 100}xx", error)
        return self._json(answer.body)

    async def _answer(self, request: bytes) -> Answer:
        """Return the answer on a kept connection, or on a new one where that had been closed by the other side."""
        if (kept := self._kept()) is not None:
            with suppress(UnheardError):
                return await self._on(kept, request)
        return await self._on(await HttpConnection.open(self._host, self._port, self._tls), request)

    async def _on(self, connection: HttpConnection, request: bytes) -> Answer:
        answer = await connection.ask(request)
        if connection.is_free:
            self._idle.append((perf_counter(), connection))
        return answer

    def _kept(self) -> HttpConnection | None:
        """Return the connection that was used last, if there is one that is open; close those not used for long."""
        while self._idle and perf_counter() - self._idle[0][0] > _IDLE_SECONDS:
            self._idle.popleft()[1].close()
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.is_free:
                return connection
        return None

    def _json(self, body: bytes) -> Any:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise self._failure("not-json") from error

    def _failure(
        self, kind: str, error: type[PolicyUnavailableError] = PolicyUnavailableError
    ) -> PolicyUnavailableError:
        self.failures[kind] += 1
        return error(f"{self._name}: {kind}")
