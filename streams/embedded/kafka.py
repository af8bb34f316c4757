"""One Apache Kafka broker as a local process: start, stop, kill, and start again on the same data and port."""

import asyncio
import subprocess
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ctrainer.streams.embedded import maven
from ctrainer.streams.embedded.errors import ServiceError
from ctrainer.streams.embedded.ports import is_free, remembered_port
from ctrainer.streams.embedded.process import DetachedProcess

_READY_SECONDS = 60.0
_SIMPLE_LOGGER = "-Dorg.slf4j.simpleLogger"
_OPTIONS = (
    *("-Xmx512m", "-Xms256m", "-XX:+UseSerialGC"),
    *(f"{_SIMPLE_LOGGER}.defaultLogLevel=warn", f"{_SIMPLE_LOGGER}.showDateTime=true"),
    f"{_SIMPLE_LOGGER}.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaBroker:
    """The broker whose data, settings and log are in `folder`."""

    folder: Path
    cache_folder: Path

    @property
    def bootstrap_servers(self) -> str | None:
        """Where the broker listens, or None when it does not run."""
        return self._address if self.process.pid() else None

    @property
    def process(self) -> DetachedProcess:
        """The process of the broker."""
        return DetachedProcess(name="kafka", folder=self.folder)

    def start(self) -> str:
        """Start the broker unless it runs, wait until it answers, and return its address.

        Blocks; call it from a thread where an event loop runs.

        Raises:
            ServiceError: it cannot be resolved or does not come up.
        """
        if not self.process.becomes(self._ready, within_seconds=_READY_SECONDS):
            self.process.kill()
            classpath = f"{maven.libraries(self.cache_folder)}/*"
            self._configure(classpath)
            command = [*_java(classpath, *_OPTIONS), "kafka.Kafka", str(self._settings)]
            self.process.start(command, ready=self._ready, within_seconds=_READY_SECONDS)
        return self._address

    def stop(self) -> None:
        """End the broker gently; its data stays."""
        self.process.stop()

    def kill(self) -> None:
        """End the broker at once, as a crash would; its data stays."""
        self.process.kill()

    def _configure(self, classpath: str) -> None:
        """Choose the ports, write the settings, and format the data folder on first use."""
        data = self.folder / "data"
        port = remembered_port(self._port_file)
        controller_port = remembered_port(self.folder / "controller.port")
        text = (files("ctrainer.streams.embedded") / "server.properties").read_text()
        self._settings.parent.mkdir(parents=True, exist_ok=True)
        self._settings.write_text(Template(text).substitute(port=port, controller_port=controller_port, data=data))
        if not (data / "meta.properties").exists():
            storage = [*_java(classpath), "kafka.tools.StorageTool"]
            cluster = _output([*storage, "random-uuid"]).split()[-1]
            _output([*storage, "format", "--standalone", "-t", cluster, "-c", str(self._settings)])

    def _ready(self) -> bool:
        return not is_free(int(self._port_file.read_text())) and answers(self._address)

    @property
    def _address(self) -> str:
        return f"127.0.0.1:{self._port_file.read_text()}"

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _port_file(self) -> Path:
        return self.folder / "kafka.port"


def answers(bootstrap_servers: str) -> bool:
    """Return whether a Kafka broker answers at this address and knows itself as a member of its cluster."""
    return asyncio.run(_answers(bootstrap_servers))


async def _answers(bootstrap_servers: str) -> bool:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=2_000)
    try:
        await client.start()
        cluster = await client.describe_cluster()
    except (KafkaError, OSError):
        return False
    finally:
        await client.close()
    return bool(cluster["brokers"])


def _java(classpath: str, *options: str) -> list[str]:
    path = maven.java()
    if path is None:
        raise ServiceError(f"Java {maven.OLDEST_JAVA} or newer is needed and was not found on PATH")
    return [path, *options, "-cp", classpath]


def _output(command: list[str]) -> str:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own broker
    if answer.returncode:
        raise ServiceError(f"preparing Kafka's data folder failed: {answer.stderr[-500:].strip()}")
    return answer.stdout
