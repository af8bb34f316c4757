"""A connection gives each question its own whole answer, or none, and is kept only where that stays so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from ctrainer.agents.compliance.policy import PolicyUnavailableError
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.policy.http_connection import HttpConnection
from tests.integration.policy.engine_server import response

Script = Callable[[int, int, asyncio.StreamWriter], None]
"""Writes what answers a question, given the number of its connection and its own on that connection."""


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve as a script says, and yield the URL and the heads that came, one list for all connections."""
    heads: list[bytes] = []
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        connection, asked = len(connections), 0
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                heads.append(head)
                asked += 1
                script(connection, asked, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


def told(connection: int, asked: int, writer: asyncio.StreamWriter) -> None:
    """Answer with the number of the connection and of the question on it."""
    writer.write(response(b"[%d, %d]" % (connection, asked)))


async def asked(url: str, times: int, *, connections: int = 1) -> list[object]:
    engine = EngineConnection(url, deadline_seconds=5.0, connections=connections)
    answers = [await engine.ask("/", {}) for _ in range(times)]
    await engine.close()
    return answers


async def test_questions_one_after_the_other_share_a_connection() -> None:
    async with scripted(told) as (url, _):
        assert await asked(url, 3, connections=8) == [[1, 1], [1, 2], [1, 3]]


async def test_no_more_connections_than_allowed_are_open_at_a_time() -> None:
    async with scripted(told) as (url, heads):
        engine = EngineConnection(url, deadline_seconds=5.0, connections=2)
        answers = await asyncio.gather(*(engine.ask("/", {}) for _ in range(20)))
        await engine.close()
    assert {connection for connection, _ in answers} == {1, 2}
    assert len(heads) == 20


async def test_an_answer_in_pieces_and_chunks_after_an_early_hint_is_one_answer() -> None:
    def script(_connection: int, _asked: int, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for piece in (b"3\r\n[1,", b"\r\n2\r\n 2\r\n", b"1\r\n]\r\n0\r\n", b"x-tail: 1\r\n\r\n"):
            writer.write(piece)

    async with scripted(script) as (url, heads):
        assert await asked(url, 2) == [[1, 2], [1, 2]]
    assert len(heads) == 2


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_an_answer_may_end_with_its_connection(version: str) -> None:
    def script(connection: int, _asked: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"%b 200 OK\r\ncontent-type: application/json\r\n\r\n[%d]" % (version.encode(), connection))
        writer.close()

    async with scripted(script) as (url, _):
        assert await asked(url, 2) == [[1], [2]]


async def test_an_engine_that_closes_after_each_answer_is_asked_on_a_new_connection() -> None:
    def script(connection: int, _asked: int, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"[%d]" % connection, status="200 OK\r\nconnection: close"))

    async with scripted(script) as (url, _):
        assert await asked(url, 3) == [[1], [2], [3]]


async def test_what_comes_after_an_answer_is_never_the_answer_to_the_next_question() -> None:
    def script(connection: int, asked: int, writer: asyncio.StreamWriter) -> None:
        told(connection, asked, writer)
        writer.write(response(b'"not asked for"'))

    async with scripted(script) as (url, _):
        assert await asked(url, 3) == [[1, 1], [2, 1], [3, 1]]


async def test_after_an_answer_with_nonsense_behind_it_another_connection_is_used() -> None:
    def script(connection: int, asked: int, writer: asyncio.StreamWriter) -> None:
        writer.write(response(b"[%d, %d]" % (connection, asked)) + b"nonsense")

    async with scripted(script) as (url, _):
        assert await asked(url, 3) == [[1, 1], [2, 1], [3, 1]]


async def test_a_connection_that_ends_under_a_question_without_a_word_is_no_failure_of_the_engine() -> None:
    def script(connection: int, asked: int, writer: asyncio.StreamWriter) -> None:
        if asked == 2:
            writer.close()
        else:
            told(connection, asked, writer)

    async with scripted(script) as (url, _):
        engine = EngineConnection(url, deadline_seconds=5.0, connections=1)
        assert [await engine.ask("/", {}) for _ in range(3)] == [[1, 1], [2, 1], [3, 1]]
        await engine.close()
    assert engine.failures == {}


async def test_an_engine_that_ends_every_connection_without_a_word_is_asked_twice_at_most() -> None:
    def script(connection: int, asked: int, writer: asyncio.StreamWriter) -> None:
        if connection == 1 and asked == 1:
            told(connection, asked, writer)
        else:
            writer.close()

    async with scripted(script) as (url, heads):
        engine = EngineConnection(url, deadline_seconds=5.0, connections=1)
        await engine.ask("/", {})
        with pytest.raises(PolicyUnavailableError, match="connection"):
            await engine.ask("/", {})
        await engine.close()
    assert len(heads) == 3


async def test_what_comes_without_a_question_closes_the_connection() -> None:
    later: list[asyncio.StreamWriter] = []

    def script(connection: int, asked: int, writer: asyncio.StreamWriter) -> None:
        told(connection, asked, writer)
        later.append(writer)

    async with scripted(script) as (url, _):
        engine = EngineConnection(url, deadline_seconds=5.0, connections=1)
        first = await engine.ask("/", {})
        (_, kept) = engine._idle[0]
        later[0].write(response(b'"not asked for"'))
        async with asyncio.timeout(5):
            while kept.is_free:  # noqa: ASYNC110 - a connection tells nobody that it is closed
                await asyncio.sleep(0.001)
        assert [first, await engine.ask("/", {})] == [[1, 1], [2, 1]]
        await engine.close()


async def test_the_answer_to_a_question_given_up_is_not_that_to_the_next_one() -> None:
    held: list[Callable[[], None]] = []

    def script(connection: int, asked: int, writer: asyncio.StreamWriter) -> None:
        held.append(lambda: told(connection, asked, writer))
        if connection == 2:
            for give in held:
                give()

    async with scripted(script) as (url, _):
        engine = EngineConnection(url, deadline_seconds=0.2, connections=1)
        with pytest.raises(PolicyUnavailableError, match="deadline"):
            await engine.ask("/", {})
        assert await engine.ask("/", {}) == [2, 1]
        await engine.close()


async def test_a_connection_that_the_engine_closed_meanwhile_is_not_used_again() -> None:
    gone = asyncio.Event()

    def script(connection: int, asked: int, writer: asyncio.StreamWriter) -> None:
        told(connection, asked, writer)
        if connection == 1:
            writer.close()
            gone.set()

    async with scripted(script) as (url, _):
        engine = EngineConnection(url, deadline_seconds=5.0, connections=1)
        first = await engine.ask("/", {})
        (_, kept) = engine._idle[0]
        async with asyncio.timeout(5):
            await gone.wait()
            while kept.is_free:  # noqa: ASYNC110 - a connection tells nobody that it is closed
                await asyncio.sleep(0.001)
        assert [first, await engine.ask("/", {})] == [[1, 1], [2, 1]]
        await engine.close()
        assert engine.failures == {}


async def test_a_question_names_host_path_and_token() -> None:
    async with scripted(told) as (url, heads):
        engine = EngineConnection(f"{url}/prefix/", deadline_seconds=5.0, connections=1, token="secret.token")
        await engine.ask("/v1/data/x", {"input": "ü"})
        await engine.close()
    line, *fields = heads[0].decode().strip().split("\r\n")
    assert line == "POST /prefix/v1/data/x HTTP/1.1"
    assert {f"host: {url.removeprefix('http://')}", "authorization: Bearer secret.token"} <= set(fields)
    assert {"content-type: application/json", "accept-encoding: identity", "content-length: 14"} <= set(fields)


async def test_a_connection_in_use_refuses_another_question() -> None:
    async with scripted(lambda *_: None) as (url, _):
        connection = await HttpConnection.open("127.0.0.1", int(url.rpartition(":")[2]), None)
        waiting = asyncio.create_task(connection.ask(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n"))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionError):
            await connection.ask(b"")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not connection.is_free
