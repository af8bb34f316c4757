"""Starts what is missing, finds what runs, stops what was started here."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from ctrainer.streams.embedded import docker, maven
from ctrainer.streams.embedded.docker import Containers
from ctrainer.streams.embedded.errors import ServiceError
from ctrainer.streams.embedded.kafka import KafkaBroker, answers
from ctrainer.streams.embedded.redis_server import RedisServer


class Way(Enum):
    """How a broker is had."""

    GIVEN = "given"
    DOCKER = "docker"
    JVM = "jvm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Where both services listen, and how the broker is had."""

    bootstrap_servers: str
    redis_url: str
    way: Way


def choose_way(
    *, given: str | None, running: Way | None, has_docker: Callable[[], bool], has_jvm: Callable[[], bool]
) -> Way:
    """Return the first way to a broker that this machine has; one that runs already is kept.

    Raises:
        ServiceError: it has none; the message names all three.
    """
    if given:
        return Way.GIVEN
    if running is not None:
        return running
    if has_docker():
        return Way.DOCKER
    if has_jvm():
        return Way.JVM
    raise ServiceError(
        "no way to a Kafka broker: set KAFKA_BOOTSTRAP_SERVERS to one that runs, or start a Docker engine "
        f"(with docker compose), or install Java {maven.OLDEST_JAVA}+ together with Maven"
    )


def up(
    *,
    cache_folder: Path,
    state_folder: Path,
    bootstrap_servers: str | None,
    redis_url: str | None,
    report: Callable[[str], None],
) -> Services:
    """Start the services that are neither given nor running, wait until they answer, and return where they are.

    Blocks; call it from a thread where an event loop runs.

    Raises:
        ServiceError: a service cannot be had, does not come up, or was given and does not answer.
    """
    way = choose_way(
        given=bootstrap_servers,
        running=_running_way(state_folder),
        has_docker=docker.is_available,
        has_jvm=maven.is_available,
    )
    if way is Way.DOCKER:
        report("starting Apache Kafka and Redis in Docker")
        containers = _containers(state_folder)
        containers.start()
        url = redis_url or containers.redis_url
        return Services(bootstrap_servers=containers.bootstrap_servers, redis_url=url, way=way)
    if way is Way.JVM:
        report(f"starting Apache Kafka {maven.KAFKA_VERSION} (data in {state_folder / 'kafka'})")
        servers = _broker(state_folder, cache_folder).start()
    else:
        servers = _require_answer(str(bootstrap_servers))
    return Services(bootstrap_servers=servers, redis_url=redis_url or _redis(state_folder).start(), way=way)


def down(*, state_folder: Path) -> None:
    """Stop what runs from this state folder; data stays."""
    _redis(state_folder).stop()
    _broker(state_folder, state_folder).stop()
    _containers(state_folder).stop()


def status(*, state_folder: Path) -> Services | None:
    """Return where the services of this state folder listen, or None unless both run."""
    servers, url = addresses(state_folder=state_folder)
    way = _running_way(state_folder)
    return Services(bootstrap_servers=servers, redis_url=url, way=way) if servers and url and way else None


def addresses(*, state_folder: Path) -> tuple[str | None, str | None]:
    """Return where Kafka and where Redis of this state folder listen, each None where it does not run."""
    if _running_way(state_folder) is Way.DOCKER:
        containers = _containers(state_folder)
        return containers.bootstrap_servers, containers.redis_url
    return _broker(state_folder, state_folder).bootstrap_servers, _redis(state_folder).url


def _running_way(state_folder: Path) -> Way | None:
    if _broker(state_folder, state_folder).bootstrap_servers is not None:
        return Way.JVM
    return Way.DOCKER if _containers(state_folder).are_running() else None


def _broker(state_folder: Path, cache_folder: Path) -> KafkaBroker:
    return KafkaBroker(folder=state_folder / "kafka", cache_folder=cache_folder)


def _redis(state_folder: Path) -> RedisServer:
    return RedisServer(folder=state_folder / "redis")


def _containers(state_folder: Path) -> Containers:
    return Containers(folder=state_folder / "docker")


def _require_answer(bootstrap_servers: str) -> str:
    if not answers(bootstrap_servers):
        raise ServiceError(f"KAFKA_BOOTSTRAP_SERVERS: no Kafka broker answers at {bootstrap_servers}")
    return bootstrap_servers
