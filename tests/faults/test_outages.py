import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ctrainer.streams.embedded import maven
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.settings import Settings
from tests.conftest import create_topics
from tests.faults.stream import PARTITIONS, Stream

OUTAGE_SECONDS = 10.0
RECORDS = 2_000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker of the test's own, which it may kill."""
    if not maven.is_available():
        pytest.skip("needs Java and Maven: a broker of its own that can be killed and started again")
    broker = KafkaBroker(folder=tmp_path / "kafka", cache_folder=Settings.read().cache_folder)
    broker.start()
    yield broker
    broker.process.stop()


@pytest.fixture
async def stream(broker: KafkaBroker, tmp_path: Path) -> AsyncIterator[Stream]:
    servers = str(broker.bootstrap_servers)
    source, target = await create_topics(servers, "outage-in", "outage-out", partitions=PARTITIONS)
    async with Stream(bootstrap_servers=servers, source=source, target=target, log=tmp_path / "log") as stream:
        yield stream


async def test_broker_that_dies_for_ten_seconds_is_survived_by_both_workers(
    broker: KafkaBroker, stream: Stream
) -> None:
    workers = await stream.two_workers()
    await stream.send(3 * RECORDS, poison_every=401)
    await stream.until(lambda: stream.arrived > 0)
    await asyncio.to_thread(broker.process.kill)
    arrived = stream.arrived
    ends = [asyncio.create_task(worker.ended()) for worker in workers]
    ended, _ = await asyncio.wait(ends, timeout=OUTAGE_SECONDS)
    assert ended == set()
    assert arrived < stream.expected
    await asyncio.to_thread(broker.start)
    await stream.send(RECORDS, poison_every=401)
    await stream.until_done()
    assert [worker.has_ended for worker in workers] == [False, False]
    await stream.verify()
