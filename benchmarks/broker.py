"""What every benchmark needs from Kafka: a broker, topics, and records in them."""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from ctrainer.streams import embedded
from ctrainer.streams.settings import Settings


@contextmanager
def broker(bootstrap_servers: str | None) -> Iterator[str]:
    """Yield the given broker, or one of our own that lives as long as the benchmark."""
    if bootstrap_servers:
        yield bootstrap_servers
        return
    with tempfile.TemporaryDirectory() as folder:
        services = embedded.up(
            cache_folder=Settings.read().cache_folder,
            state_folder=Path(folder),
            bootstrap_servers=None,
            redis_url=None,
            report=lambda _text: None,
        )
        try:
            yield services.bootstrap_servers
        finally:
            embedded.down(state_folder=Path(folder))


async def fresh_topics(bootstrap_servers: str, names: Sequence[str], partitions: int) -> list[str]:
    """Create topics with names nobody has used and return them."""
    suffix = uuid4().hex[:8]
    topics = [f"{name}-{suffix}" for name in names]
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await client.start()
    await client.create_topics([NewTopic(topic, partitions, 1) for topic in topics])
    await client.close()
    return topics


async def fill(bootstrap_servers: str, topic: str, *, records: int, value: bytes, partitions: int) -> None:
    """Write equal records round the partitions, a thousand different keys."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, max_batch_size=512 * 1024, linger_ms=5)
    await producer.start()
    waiting = [
        await producer.send(topic, key=b"key-%d" % (number % 1000), value=value, partition=number % partitions)
        for number in range(records)
    ]
    await asyncio.gather(*waiting)
    await producer.stop()
