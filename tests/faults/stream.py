"""A stream of numbered records through faulty workers, and the guarantee that must hold for it whatever happens."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ctrainer.agents.records import Record
from ctrainer.schemas.topics import DEAD_LETTERS
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from tests.faults.worker_process import WorkerProcess

PARTITIONS = 4
_KEYS = 64
_PATIENCE_SECONDS = 60.0


class Stream:
    """An input topic, an output topic with as many partitions, and workers between them."""

    def __init__(self, *, bootstrap_servers: str, source: str, target: str, log: Path) -> None:
        self.workers: list[WorkerProcess] = []
        self.sent: list[bytes] = []
        self.arrived = 0
        self._bootstrap_servers = bootstrap_servers
        self._source = source
        self._target = target
        self._log = log
        self._news = asyncio.Condition()
        self._exit = AsyncExitStack()
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True)

    async def __aenter__(self) -> Self:
        administration = TopicAdministration(
            bootstrap_servers=self._bootstrap_servers, partitions=PARTITIONS, replication_factor=1
        )
        await administration.apply()
        await self._producer.start()
        self._exit.push_async_callback(self._producer.stop)
        watcher = asyncio.create_task(self._watch())
        self._exit.push_async_callback(_cancel, watcher)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            await worker.kill()
        await self._exit.aclose()

    async def worker(self, *faults: str, max_records: int = 25) -> WorkerProcess:
        """Start a worker with faults, each as `KIND:POINT:PASSAGES`."""
        arguments = ["--bootstrap-servers", self._bootstrap_servers, "--group", self._source]
        arguments += ["--source", self._source, "--target", self._target]
        arguments += ["--max-records", str(max_records)]
        arguments += [part for fault in faults for part in ("--fault", fault)]
        worker = await WorkerProcess.start(arguments, log=self._log, heard=self._news)
        self.workers.append(worker)
        return worker

    async def two_workers(self, *faults: str) -> tuple[WorkerProcess, WorkerProcess]:
        """Start a worker with faults and a sound one; return when both own partitions."""
        faulty, sound = await asyncio.gather(self.worker(*faults), self.worker())
        await self.until(lambda: faulty.takeovers > 0 and sound.takeovers > 0)
        return faulty, sound

    async def send(self, count: int, *, poison_every: int = 0) -> None:
        """Produce that many records, each with a value of its own; some of them poison."""
        numbers = range(len(self.sent), len(self.sent) + count)
        values = [b"poison-%d" % n if poison_every and n % poison_every == 0 else b"%d" % n for n in numbers]
        pending = [
            await self._producer.send(self._source, value, key=b"key-%d" % (number % _KEYS))
            for number, value in zip(numbers, values, strict=True)
        ]
        await asyncio.gather(*pending)
        self.sent += values

    @property
    def expected(self) -> int:
        """How many outputs there must be in the end: one for each record that is not poison."""
        return len(self.sent) - sum(value.startswith(b"poison") for value in self.sent)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on what workers said or on how many outputs arrived holds.

        Raises:
            TimeoutError: it does not come to hold; the message tells the state of the stream.
        """
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS), self._news:
                await self._news.wait_for(condition)
        except TimeoutError as error:
            said = [(worker.has_ended, worker.said[-4:]) for worker in self.workers]
            raise TimeoutError(f"{self.arrived} of {self.expected} outputs arrived; workers: {said}") from error

    async def until_done(self) -> None:
        """Return when as many outputs arrived as there must be."""
        expected = self.expected
        await self.until(lambda: self.arrived >= expected)

    async def _watch(self) -> None:
        """Count outputs as they become visible."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await consumer.start()
        try:
            consumer.assign([TopicPartition(self._target, number) for number in range(PARTITIONS)])
            while True:
                fetched = await consumer.getmany(timeout_ms=1_000)
                async with self._news:
                    self.arrived += sum(map(len, fetched.values()))
                    self._news.notify_all()
        finally:
            await consumer.stop()

    async def verify(self) -> None:
        """Stop the workers and compare what was sent with what can be read: by identity, and in order."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            for worker in self.workers:
                await worker.stop()
        reader = TopicReader(bootstrap_servers=self._bootstrap_servers)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            outputs = [record async for record in reader.read_topic(self._target)]
        async with asyncio.timeout(_PATIENCE_SECONDS):
            dead = [record async for record in reader.read_topic(DEAD_LETTERS) if _came_from(record, self._source)]
        seen = Counter(record.value for record in (*outputs, *dead))
        assert {value: count for value, count in seen.items() if count > 1} == {}, "duplicates"
        assert set(self.sent) - set(seen) == set(), "lost"
        assert set(seen) - set(self.sent) == set(), "invented"
        assert {r.value for r in dead} == {value for value in self.sent if value.startswith(b"poison")}
        for partition in range(PARTITIONS):
            assert_in_order(record for record in outputs if record.partition == partition)


def assert_in_order(outputs: Iterable[Record]) -> None:
    """Fail unless the outputs of one partition stand in the order of their inputs, all of the same partition."""
    sources: Sequence[tuple[int, int]] = [_source_of(record) for record in outputs]
    assert len({partition for partition, _ in sources}) <= 1
    assert list(sources) == sorted(set(sources))


def _source_of(record: Record) -> tuple[int, int]:
    partition, _, offset = dict(record.headers)["source"].decode().partition("/")
    return int(partition), int(offset)


def _came_from(record: Record, topic: str) -> bool:
    return dict(record.headers)["dlq.src.topic"] == topic.encode()


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
