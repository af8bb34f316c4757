from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from ctrainer.streams.embedded.redis_server import RedisServer
from ctrainer.streams.verdict_cache import TIME_TO_LIVE_SECONDS, RedisVerdictCache


async def test_workers_share_what_they_put_and_it_expires(redis_url: str) -> None:
    prefix = f"test-{uuid4()}:"
    one, other = (RedisVerdictCache.connect(redis_url, prefix=prefix) for _ in range(2))
    await one.put_many({"a": b"1", "b": b"2"})
    assert await other.get_many(["a", "missing", "b"]) == [b"1", None, b"2"]
    assert 0 < await one._redis.ttl(f"{prefix}a") <= TIME_TO_LIVE_SECONDS
    await one.close()
    await other.close()


async def test_another_application_sees_nothing_of_it(redis_url: str) -> None:
    one, other = (RedisVerdictCache.connect(redis_url, prefix=f"test-{uuid4()}:") for _ in range(2))
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
    cache = RedisVerdictCache.connect(str(own_redis.url), prefix="test:", pause_batches=2)
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
