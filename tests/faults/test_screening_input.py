import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry
from redis import Redis

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.force import appoint
from ctrainer.agents.records import Headers, Record
from ctrainer.agents.screening import Screening
from ctrainer.schemas.compliance import SampleJudged, Verdict
from ctrainer.schemas.envelope import Event
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, DEAD_LETTERS
from ctrainer.streams.application import create_application
from ctrainer.streams.cache_seal import CacheSeal
from ctrainer.streams.embedded.redis_server import RedisServer
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.transactional_source import Subscription, TransactionalSource
from ctrainer.streams.verdict_cache import RedisVerdictCache
from tests.conftest import MakeTopics

FIVE_MB = 5 * 1024 * 1024
HEADERS: Headers = (("traceparent", b"00-not-ours"), ("shade", b"\xff\x00"), ("shade", b""))


def logged(question: str, *, workload: str = "desk") -> bytes:
    return json.dumps(
        {
            "timestamp": 1,
            "client_id": "shop",
            "workload_id": workload,
            "request": {"messages": [{"role": "user", "content": question}]},
            "response": {"choices": [{"message": {"role": "assistant", "content": "On its way."}}]},
        }
    ).encode()


BAD = {
    "empty-record": (None, b"", b" \n"),
    "not-json": (b"poison", b"\x00" * 32),
    "not-utf8": (logged("Where?").replace(b"Where?", b"\xc3\x28"),),
    "record-too-large": (logged("x" * FIVE_MB),),
    "not-an-object": (b"[]",),
}


class Screened:
    """The real screening stage between a topic of the test's own and the topics of the table."""

    def __init__(self, *, producer: AIOKafkaProducer, reader: TopicReader, topic: str) -> None:
        self._producer = producer
        self._reader = reader
        self._topic = topic

    async def send(self, values: Sequence[bytes | None]) -> None:
        for value in values:
            await self._producer.send_and_wait(self._topic, value, key=b"acme/desk", headers=list(HEADERS))

    async def judged(self, count: int) -> list[Event[SampleJudged]]:
        """Return the decisions on the topic's records, in order, when there are that many."""
        events = await self._at_least(
            count, COMPLIANCE_EVENTS, lambda record: self._topic.encode() in (record.value or b"")
        )
        parsed = [Event[SampleJudged].model_validate_json(record.value or b"") for record in events]
        return sorted(parsed, key=lambda event: event.data.source.offset)

    async def dead(self, count: int) -> list[Record]:
        """Return the dead letters of the topic's records, in order, when there are that many."""
        letters = await self._at_least(
            count, DEAD_LETTERS, lambda record: dict(record.headers)["dlq.src.topic"] == self._topic.encode()
        )
        return sorted(letters, key=lambda letter: int(dict(letter.headers)["dlq.src.offset"]))

    async def _at_least(self, count: int, topic: str, mine: Callable[[Record], bool]) -> list[Record]:
        async with asyncio.timeout(60):
            while True:
                found = [record async for record in self._reader.read_topic(topic) if mine(record)]
                if len(found) >= count:
                    return found


@asynccontextmanager
async def screening(servers: str, topic: str, cache: RedisVerdictCache | None = None) -> AsyncIterator[Screened]:
    """Run the real screening stage on a topic."""
    async with AsyncExitStack() as stack:
        await TopicAdministration(bootstrap_servers=servers, partitions=4, replication_factor=1).apply()
        constitution = default_constitution()
        engine = RegorusEngine(bundle_of(constitution))
        app = create_application(topic)
        judges = appoint(Court(constitution), engine, cache=cache)
        handler = Screening(judges=lambda: judges)
        source = TransactionalSource(
            subscription=Subscription(application=topic, bootstrap_servers=servers, topic=topic, group=topic),
            stage=Stage(app, name="screening", handler=handler),
            metrics=StreamMetrics.register(CollectorRegistry()).of("screening"),
        )
        producer = AIOKafkaProducer(bootstrap_servers=servers, max_request_size=32 * 1024 * 1024)
        for service in (app, source, producer):
            await service.start()
            stack.push_async_callback(service.stop)
        yield Screened(producer=producer, reader=TopicReader(bootstrap_servers=servers), topic=topic)


async def test_bad_records_become_dead_letters_untouched_and_the_stream_goes_on(
    bootstrap_servers: str, make_topics: MakeTopics
) -> None:
    (topic,) = await make_topics("screening-in", partitions=1)
    bad = [(reason, value) for reason, values in BAD.items() for value in values]
    async with screening(bootstrap_servers, topic) as screened:
        for number, (_, value) in enumerate(bad):
            await screened.send([value, logged(f"Question {number}?")])
        events = await screened.judged(len(bad))
        letters = await screened.dead(len(bad))
    assert [event.data.source.offset for event in events] == [2 * number + 1 for number in range(len(bad))]
    assert [letter.value for letter in letters] == [value for _, value in bad]
    assert [letter.headers[: len(HEADERS)] for letter in letters] == [HEADERS] * len(bad)
    told = [dict(letter.headers) for letter in letters]
    assert [header["dlq.reason"].decode() for header in told] == [reason for reason, _ in bad]
    assert [int(header["dlq.src.offset"]) for header in told] == [2 * number for number in range(len(bad))]
    assert {header["dlq.src.key"] for header in told} == {b"acme/desk"}


async def test_judging_goes_on_when_redis_goes(bootstrap_servers: str, make_topics: MakeTopics, tmp_path: Path) -> None:
    (topic,) = await make_topics("screening-in", partitions=1)
    redis = RedisServer(folder=tmp_path)
    cache = RedisVerdictCache.connect(
        await asyncio.to_thread(redis.start), prefix=f"{topic}:", seal=CacheSeal(bytes(32))
    )
    before, after = (
        [logged("Where?", workload=f"{when}-{number}") for number in range(100)] for when in ("before", "after")
    )
    try:
        async with screening(bootstrap_servers, topic, cache) as screened:
            await screened.send(before)
            await screened.judged(100)
            with Redis.from_url(str(redis.url)) as client:
                assert client.dbsize() == len(before)
            await asyncio.to_thread(redis.kill)
            await screened.send(after)
            events = await screened.judged(200)
    finally:
        await cache.close()
        redis.stop()
    assert [event.data.source.offset for event in events] == list(range(200))
    assert {event.data.verdict for event in events} == {Verdict.ACCEPT}
