import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from ctrainer.streams.cache_seal import CacheSeal
from ctrainer.streams.embedded.redis_server import RedisServer
from ctrainer.streams.verdict_cache import MOST_SECONDS, TIME_TO_LIVE_SECONDS, RedisVerdictCache

SEAL = CacheSeal(b"a secret of thirty-two bytes ...")
BULK = b"$3\r\nabc\r\n"
LIES = {
    "a number": b":1\r\n",
    "a truth value": b"#t\r\n",
    "too few": b"*1\r\n" + BULK,
    "too many": b"*3\r\n" + BULK * 3,
    "no list": b"*-1\r\n",
    "other types": b"*2\r\n:1\r\n*1\r\n" + BULK,
    "a count that is none": b"*x\r\n",
    "a length that is none": b"*2\r\n$-5\r\n",
    "lists in lists": b"*1\r\n" * 5_000 + BULK,
    "a key that is a list": b"%1\r\n*1\r\n" + BULK + BULK,
    "an error": b"-MOVED 1 127.0.0.1:1\r\n",
    "another protocol": b"<html>\r\n",
    "the beginning of gigabytes": b"*2\r\n$4000000000\r\n" + BULK,
    "nothing": b"",
}


async def test_workers_share_what_they_put_and_it_expires(redis_url: str) -> None:
    prefix = f"test-{uuid4()}:"
    one, other = (RedisVerdictCache.connect(redis_url, prefix=prefix, seal=SEAL) for _ in range(2))
    await one.put_many({"a": b"1", "b": b"2"})
    assert await other.get_many(["a", "missing", "b"]) == [b"1", None, b"2"]
    assert 0 < await one._redis.ttl(f"{prefix}{SEAL.name}:a") <= TIME_TO_LIVE_SECONDS
    await one.close()
    await other.close()


async def test_another_application_sees_nothing_of_it(redis_url: str) -> None:
    one, other = (RedisVerdictCache.connect(redis_url, prefix=f"test-{uuid4()}:", seal=SEAL) for _ in range(2))
    await one.put_many({"a": b"1"})
    assert await other.get_many(["a"]) == [None]
    await one.close()
    await other.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder=tmp_path)
    server.start()
    yield server
    server.stop()


async def test_without_redis_nothing_is_cached_and_nothing_fails(own_redis: RedisServer) -> None:
    cache = RedisVerdictCache.connect(str(own_redis.url), prefix="test:", seal=SEAL, pause_batches=2)
    await cache.put_many({"a": b"1"})
    own_redis.kill()
    assert await cache.get_many(["a"]) == [None]
    await cache.put_many({"a": b"1"})
    own_redis.start()
    answers = [await cache.get_many(["a"]) for _ in range(3)]
    assert answers[-1] == [None]
    await cache.put_many({"a": b"2"})
    assert await cache.get_many(["a"]) == [b"2"]
    await cache.close()


async def test_what_others_wrote_or_moved_counts_as_absent(redis_url: str) -> None:
    prefix = f"test-{uuid4()}:"
    cache = RedisVerdictCache.connect(redis_url, prefix=prefix, seal=SEAL)
    await cache.put_many({"a": b"1"})
    place = f"{prefix}{SEAL.name}:"
    kept = SEAL.sealed(place + "a", b"1")
    async with Redis.from_url(redis_url) as redis:
        assert await redis.get(place + "a") == kept
        forged = CacheSeal(bytes(32)).sealed(place + "forged", b"1")
        others: dict[str, bytes] = {
            "moved": kept,
            "cut": kept[:-1],
            "longer": kept + b"0",
            "bare": b"1",
            "none": b"",
            "forged": forged,
        }
        for key, value in others.items():
            await redis.set(place + key, value)
    assert await cache.get_many(["a", *others]) == [b"1", *[None] * len(others)]
    await cache.close()


@asynccontextmanager
async def answering(answer: bytes, *, each_after_seconds: float = 0.0) -> AsyncIterator[str]:
    """Serve what greets as Redis does and then gives the same answer to every command."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while sent := await reader.read(65_536):
                for command in sent.split(b"\r\n$")[1:]:
                    if command.endswith((b"\r\nHELLO", b"\r\nCLIENT")):
                        writer.write(b"%1\r\n+proto\r\n:3\r\n" if command.endswith(b"HELLO") else b"+OK\r\n")
                    elif command.endswith((b"\r\nMGET", b"\r\nSET")):
                        await asyncio.sleep(each_after_seconds)
                        writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize("lie", LIES)
async def test_whatever_redis_answers_is_at_worst_nothing(lie: str) -> None:
    async with answering(LIES[lie]) as url:
        asked, told = (RedisVerdictCache.connect(url, prefix="test:", seal=SEAL) for _ in range(2))
        assert await asked.get_many(["a", "b"]) == [None, None]
        await told.put_many({"a": b"1", "b": b"2"})
        await asked.close()
        await told.close()


async def test_a_redis_that_sends_its_clients_elsewhere_is_not_followed() -> None:
    visits = list[bytes]()

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(await reader.read(65_536))
        writer.close()

    async with answering(b">4\r\n+MOVING\r\n:1\r\n:30\r\n$11\r\n127.0.0.2:1\r\n*1\r\n$-1\r\n") as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        async with await asyncio.start_server(note, "127.0.0.2", port):
            cache = RedisVerdictCache.connect(url, prefix="test:", seal=SEAL, pause_batches=0)
            for _ in range(5):
                assert await cache.get_many(["a"]) == [None]
            await cache.close()
    assert visits == []


async def test_a_redis_that_is_slow_over_each_answer_is_left_alone() -> None:
    async with answering(b"+OK\r\n", each_after_seconds=0.1) as url:
        cache = RedisVerdictCache.connect(url, prefix="test:", seal=SEAL)
        started = perf_counter()
        await cache.put_many({str(number): b"1" for number in range(100)})
        assert perf_counter() - started < 4 * MOST_SECONDS
        assert await cache.get_many(["0"]) == [None]
        await cache.close()
