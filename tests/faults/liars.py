"""A Redis and an HTTP service on loopback that lie as a test tells them to."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

Tell = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""Answers one question in whatever way."""
Answerer = Callable[[bytes], Awaitable[Tell]]
"""Says from the body of a question how it is answered."""
Values = Sequence[bytes | None]
RedisLie = Callable[[Values, bytes], Tell]
"""Says how an MGET is answered, from the values that are asked for and the one that is coveted."""


def words(*pieces: bytes) -> Tell:
    """Answer with these bytes."""

    async def tell(writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return tell


def last_words(*pieces: bytes) -> Tell:
    """Answer with these bytes, and close the connection without having said so."""

    async def tell(writer: asyncio.StreamWriter) -> None:
        await words(*pieces)(writer)
        writer.close()

    return tell


def drip(head: bytes, drop: bytes) -> Tell:
    """Answer for ever, slowly."""

    async def tell(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.02)

    return tell


async def silence(_: asyncio.StreamWriter) -> None:
    """Answer never."""
    await asyncio.Event().wait()


class LyingRedis:
    """A Redis that keeps what it is given, and tells one lie after the other about it. Then it is honest.

    It begins with a value that holds what is `coveted`.
    """

    def __init__(self, lies: Sequence[RedisLie], *, coveted: bytes) -> None:
        self.untold = deque(lies)
        self._coveted = coveted
        self._kept: dict[bytes, bytes] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        while True:
            name, *arguments = await _command(reader)
            match name.upper():
                case b"SET":
                    self._kept[arguments[0]] = arguments[1]
                    writer.write(b"+OK\r\n")
                case b"MGET":
                    await self._read(arguments)(writer)
                case _:
                    writer.write(b"+OK\r\n")
            await writer.drain()

    def _read(self, keys: Sequence[bytes]) -> Tell:
        values = [self._kept.get(key) for key in keys]
        coveted = next((value for value in self._kept.values() if self._coveted in value), None)
        if coveted is not None and self.untold:
            return self.untold.popleft()(values, coveted)
        return words(bulks(values))


def bulks(values: Values) -> bytes:
    """Return a list in Redis' protocol."""
    parts = (b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value) for value in values)
    return b"*%d\r\n%b" % (len(values), b"".join(parts))


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    parts = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return parts


class Service:
    """An HTTP service that answers each question as an answerer says."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        while not writer.is_closing():
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
            tell = await self._answerer(body)
            await tell(writer)


@asynccontextmanager
async def listening(liar: LyingRedis | Service) -> AsyncIterator[int]:
    """Serve on a free port, and yield it."""
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            tasks.add(task)
        try:
            await liar.serve(reader, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
