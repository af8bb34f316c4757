"""Verdicts shared between workers: Redis behind the screening stage. Without Redis it is slower and nothing else."""

import logging
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

TIME_TO_LIVE_SECONDS = 300
_LOG = logging.getLogger(__name__)


class RedisVerdictCache:
    """Policy results by key, for `TIME_TO_LIVE_SECONDS`.

    A key is a digest over everything the result depends on, so an entry is never stale, only absent. An outage
    reads as "nothing cached"; after one, Redis is left alone for `pause_batches` look-ups, so that a dead server
    costs no latency.
    """

    def __init__(self, redis: Redis, *, prefix: str, pause_batches: int) -> None:
        self._redis = redis
        self._prefix = prefix
        self._pause_batches = pause_batches
        self._skip = 0

    @classmethod
    def connect(cls, url: str, *, prefix: str, pause_batches: int = 50) -> "RedisVerdictCache":
        """Return a cache on the server at `url`; nothing is sent yet."""
        redis = Redis.from_url(url, socket_timeout=0.2, socket_connect_timeout=0.2, retry=Retry(NoBackoff(), 0))
        return cls(redis, prefix=prefix, pause_batches=pause_batches)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the value of each key, None where there is none: one round trip for all."""
        if not keys or self._paused():
            return [None] * len(keys)
        try:
            values = await self._redis.mget([self._prefix + key for key in keys])
        except (RedisError, OSError) as error:
            self._pause(error)
            return [None] * len(keys)
        return [value if isinstance(value, bytes) else None for value in values]

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        """Keep values for `TIME_TO_LIVE_SECONDS`: one round trip for all."""
        if not values or self._skip:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for key, value in values.items():
            pipeline.set(self._prefix + key, value, ex=TIME_TO_LIVE_SECONDS)
        try:
            await pipeline.execute()
        except (RedisError, OSError) as error:
            self._pause(error)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    def _paused(self) -> bool:
        self._skip = max(0, self._skip - 1)
        return self._skip > 0

    def _pause(self, error: Exception) -> None:
        self._skip = self._pause_batches
        _LOG.warning("verdict cache unavailable (%s); judging goes on without it", type(error).__name__)
