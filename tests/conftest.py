import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from importlib.resources import as_file, files
from pathlib import Path

# Its pytest plugin imports it when a run ends, where it is not there yet; CPython 3.11.7 can fail to compile it then.
import hypothesis
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import for_code

from ctrainer.streams.embedded import Services, Way, docker, down, maven, up
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.settings import Settings

# How long one example takes says how busy the machine is, not whether what it shows holds.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

MakeTopics = Callable[..., Awaitable[tuple[str, ...]]]
_LARGEST_RECORD = 16 * 1024 * 1024


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """One Kafka and one Redis for the whole run: those that are given, else containers, else local processes."""
    settings = Settings.read()
    with ExitStack() as stack:
        folder = tmp_path_factory.mktemp("services")
        if settings.kafka_bootstrap_servers is None and docker.is_available():
            yield _containers(stack, settings, folder)
        else:
            yield _processes(stack, settings, folder)


@pytest.fixture(scope="session")
def bootstrap_servers(services: Services) -> str:
    return services.bootstrap_servers


@pytest.fixture(scope="session")
def redis_url(services: Services) -> str:
    return services.redis_url


@pytest.fixture(scope="module")
def broker_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    if not maven.is_available():
        pytest.skip(f"needs Java {maven.OLDEST_JAVA} or newer and Maven")
    folder = tmp_path_factory.mktemp("own broker")
    broker = KafkaBroker(folder=folder, cache_folder=Settings.read().cache_folder)
    yield broker
    broker.stop()


@pytest.fixture
def own_broker(broker_of_module: KafkaBroker) -> KafkaBroker:
    """A running broker that the test may stop, kill and start; these block, so an async test calls them in a thread."""
    broker_of_module.start()
    return broker_of_module


@pytest.fixture
def make_topics(bootstrap_servers: str) -> MakeTopics:
    """Create topics that no other test knows, and return their names when each partition's leader serves it."""

    async def make(*names: str, partitions: int = 4) -> tuple[str, ...]:
        return await create_topics(bootstrap_servers, *names, partitions=partitions)

    return make


async def create_topics(bootstrap_servers: str, *names: str, partitions: int) -> tuple[str, ...]:
    suffix = uuid.uuid4().hex[:8]
    unique = tuple(f"{name}-{suffix}" for name in names)
    configs = {"max.message.bytes": str(_LARGEST_RECORD)}
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await client.start()
    try:
        answer = await client.create_topics([NewTopic(name, partitions, 1, topic_configs=configs) for name in unique])
    finally:
        await client.close()
    for name, code, *_ in answer.topic_errors:
        if code:
            raise for_code(code)(name)
    await _leaders_serve(
        bootstrap_servers, [TopicPartition(name, part) for name in unique for part in range(partitions)]
    )
    return unique


async def _leaders_serve(bootstrap_servers: str, partitions: list[TopicPartition]) -> None:
    """Wait until the leader of every partition answers for it; asking for its end leaves no record in it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap_servers)
    await consumer.start()
    try:
        async with asyncio.timeout(30):
            await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()


def _processes(stack: ExitStack, settings: Settings, folder: Path) -> Services:
    stack.callback(down, state_folder=folder)
    return up(
        cache_folder=settings.cache_folder,
        state_folder=folder,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        redis_url=settings.redis_url,
        report=print,
    )


def _containers(stack: ExitStack, settings: Settings, folder: Path) -> Services:
    """Return the services of the product's own compose file, whose volumes go with the test run."""
    from testcontainers.compose import DockerCompose  # noqa: PLC0415 - needed only where a Docker engine answers

    containers = docker.Containers(folder=folder)
    containers.prepare()
    source = stack.enter_context(as_file(files("ctrainer.streams.embedded") / "compose.yaml"))
    environment = str(containers.environment_file)
    stack.enter_context(DockerCompose(source.parent, source.name, env_file=environment))
    return Services(
        bootstrap_servers=containers.bootstrap_servers,
        redis_url=settings.redis_url or containers.redis_url,
        way=Way.DOCKER,
    )
