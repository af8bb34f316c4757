"""Kafka and Redis as containers, where a Docker engine answers."""

import shutil
import subprocess
from importlib.resources import as_file, files

from ctrainer.streams.embedded.errors import ServiceError

BOOTSTRAP_SERVERS = "127.0.0.1:9092"
REDIS_URL = "redis://127.0.0.1:6379/0"


def is_available() -> bool:
    """Return whether a Docker engine answers, not only whether its client is installed."""
    return shutil.which("docker") is not None and _docker("info").returncode == 0


def up() -> None:
    """Start the containers and return when both are healthy.

    Raises:
        ServiceError: Docker could not start them.
    """
    _compose("up", "--detach", "--wait", "kafka", "redis")


def down() -> None:
    """Stop the containers; their volumes stay."""
    _compose("down")


def _compose(*arguments: str) -> None:
    with as_file(files("ctrainer.streams.embedded") / "compose.yaml") as file:
        answer = _docker("compose", "--file", str(file), *arguments)
    if answer.returncode:
        raise ServiceError(f"docker compose {arguments[0]} failed: {answer.stderr[-500:].strip()}")


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607 - on PATH
