"""Kafka and Redis as containers, where a Docker engine answers."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path

from ctrainer.streams.embedded.errors import ServiceError
from ctrainer.streams.embedded.ports import free_port, is_free

_SECONDS_TO_ANSWER = 10.0


def is_available() -> bool:
    """Return whether a Docker engine answers and its client knows `compose`, not only whether it is installed."""
    return shutil.which("docker") is not None and _succeeds("info") and _succeeds("compose", "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """The containers that belong to `folder`, which remembers their project name and their ports."""

    folder: Path

    @property
    def bootstrap_servers(self) -> str:
        """Where the broker listens when it runs."""
        return f"127.0.0.1:{self._variables()['CTRAINER_KAFKA_PORT']}"

    @property
    def redis_url(self) -> str:
        """Where Redis listens when it runs."""
        return f"redis://127.0.0.1:{self._variables()['CTRAINER_REDIS_PORT']}/0"

    @property
    def environment_file(self) -> Path:
        """The variables of the compose file."""
        return self.folder / "compose.env"

    def are_running(self) -> bool:
        """Return whether they were started and something listens on the broker's port."""
        return self.environment_file.exists() and not is_free(int(self._variables()["CTRAINER_KAFKA_PORT"]))

    def start(self) -> None:
        """Start the containers and return when both are healthy.

        Raises:
            ServiceError: Docker could not start them.
        """
        if not self.environment_file.exists():
            self.prepare()
        self._compose("up", "--detach", "--wait", "kafka", "redis")

    def stop(self) -> None:
        """Stop the containers if they were started; their volumes stay."""
        if self.environment_file.exists():
            self._compose("down")
            self.environment_file.unlink()

    def prepare(self) -> None:
        """Choose a project name of this folder's own and free ports, and note them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = sha256(str(self.folder.resolve()).encode()).hexdigest()[:8]
        self.environment_file.write_text(
            f"COMPOSE_PROJECT_NAME=ctrainer-{name}\n"
            f"CTRAINER_KAFKA_PORT={free_port()}\nCTRAINER_REDIS_PORT={free_port()}\n"
        )

    def _variables(self) -> Mapping[str, str]:
        lines = self.environment_file.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def _compose(self, *arguments: str) -> None:
        with as_file(files("ctrainer.streams.embedded") / "compose.yaml") as file:
            options = ["--env-file", str(self.environment_file), "--file", str(file)]
            answer = _docker("compose", *options, *arguments)
        if answer.returncode:
            raise ServiceError(f"docker compose {arguments[0]} failed: {answer.stderr[-500:].strip()}")


def _succeeds(*arguments: str) -> bool:
    try:
        return _docker(*arguments, timeout=_SECONDS_TO_ANSWER).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _docker(*arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    command = ["docker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)  # noqa: S603 - on PATH
