"""Questions to a policy engine or a guard model over kept HTTP connections.

With a deadline, a bound on their number, and a breaker.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from ssl import SSLContext
from time import perf_counter
from typing import Any

import aiohttp
import orjson

from ctrainer.agents.compliance.policy import PolicyUnavailableError
from ctrainer.streams.latency import Latency
from ctrainer.streams.policy.circuit_breaker import CircuitBreaker

MOST_BYTES = 4 * 1024 * 1024
"""A longer answer is none of a policy engine."""
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
        self._url = url.rstrip("/")
        self._deadline = deadline_seconds
        self._connections = connections
        self._tls = tls
        self._free = asyncio.Semaphore(connections)
        # An answer is never compressed: it could be a thousand times as long as what comes over the wire.
        self._headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

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
        except aiohttp.ClientError as error:
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
        session = self._opened()
        async with session.post(self._url + path, data=body, headers=self._headers, allow_redirects=False) as response:
            if response.status != 200:  # noqa: PLR2004 - OK
                error = QuestionRefusedError if response.status in _REFUSALS else PolicyUnavailableError
                raise self._failure(f"status-{response.status // 100}xx", error)
            return self._json(await self._read(response))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for piece in response.content.iter_any():
            size += len(piece)
            if size > MOST_BYTES:
                raise self._failure("too-long")
            pieces.append(piece)
        return b"".join(pieces)

    def _json(self, body: bytes) -> Any:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise self._failure("not-json") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=60.0, ssl=self._tls or True)
            # Nobody here wants cookies, and the deadline is ours: aiohttp's own would set a timer for each question.
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        return self._session

    def _failure(
        self, kind: str, error: type[PolicyUnavailableError] = PolicyUnavailableError
    ) -> PolicyUnavailableError:
        self.failures[kind] += 1
        return error(f"{self._name}: {kind}")
