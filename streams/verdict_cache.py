"""Verdicts shared between workers: Redis behind the screening stage. Without Redis it is slower and nothing else."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ctrainer.streams.cache_seal import CacheSeal

TIME_TO_LIVE_SECONDS = 300
MOST_SECONDS: Final = 0.5
"""So long may one round trip take as a whole, however many answers it has."""
_FAILURES = (RedisError, OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""An outage, and what the client library raises over an answer that is none in Redis' protocol."""
_LOG = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class RedisVerdictCache:
    """Policy results by key, for `TIME_TO_LIVE_SECONDS`.

    A key is a digest over everything the result depends on, so an entry is never stale, only absent. What a holder of
    the same secret did not put under the same key is absent, too, whatever Redis says. An outage reads as "nothing
    cached"; after one, Redis is left alone for `pause_batches` look-ups, so that a dead server costs no latency.
    """

    def __init__(self, redis: Redis, *, prefix: str, seal: CacheSeal, pause_batches: int) -> None:
        self._redis = redis
        # Workers with another secret could not read these: each has entries of its own.
        self._prefix = f"{prefix}{seal.name}:"
        self._seal = seal
        self._pause_batches = pause_batches
        self._skip = 0

    @classmethod
    def connect(cls, url: str, *, prefix: str, seal: CacheSeal, pause_batches: int = 50) -> "RedisVerdictCache":
        """Return a cache on the server at `url`; nothing is sent yet."""
        # In the third version of the protocol a server may push word to go to another one, password and all.
        redis = Redis.from_url(
            url, protocol=2, socket_timeout=0.2, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0)
        )
        return cls(redis, prefix=prefix, seal=seal, pause_batches=pause_batches)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key, None where there is none: one round trip for all."""
        if not keys or self._paused():
            return [None] * len(keys)
        places = [self._prefix + key for key in keys]
        values = await self._answer(self._redis.mget(places))
        if not isinstance(values, list) or len(values) != len(places):
            return [None] * len(keys)
        return [self._seal.opened(place, value) for place, value in zip(places, values, strict=True)]

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """Keep values for `TIME_TO_LIVE_SECONDS`: one round trip for all."""
        if not values or self._skip:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in values.items():
            place = self._prefix + key
            pipeline.set(place, self._seal.sealed(place, value), ex=TIME_TO_LIVE_SECONDS)
        await self._answer(pipeline.execute())

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _answer(self, asked: Awaitable[Answer]) -> Answer | None:
        """Return what Redis answers, None where it answers nothing that can be read, or too late."""
        try:
            async with asyncio.timeout(MOST_SECONDS):
                return await asked
        except _FAILURES as error:
            self._skip = self._pause_batches
            _LOG.warning("verdict cache unavailable (%s); judging goes on without it", type(error).__name__)
            return None

    def _paused(self) -> bool:
        self._skip = max(0, self._skip - 1)
        return self._skip > 0
