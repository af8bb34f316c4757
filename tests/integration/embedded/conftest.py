from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrainer.streams.embedded.redis_server import RedisServer


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder=tmp_path / "redis")
    try:
        server.start()
        yield server
    finally:
        server.stop()
