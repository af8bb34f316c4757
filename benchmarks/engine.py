"""How fast the stream engine is, as ratios to a plain transactional loop and to Faust's own streams, in one run.

One process, 600-byte records, four partitions, one record in, two out, the same broker for all.
"""

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry

from benchmarks.broker import broker, fill, fresh_topics
from ctrainer.agents.records import OutputRecord, RecordBatch
from ctrainer.streams.application import create_application
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.transactional_source import Subscription, TransactionalSource

PARTITIONS = 4
VALUE = b"x" * 600
RECORDS = {"engine": 200_000, "bare": 60_000, "faust": 6_000}


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run: records per second of wall time, and process CPU microseconds for each input record."""

    records_per_s: float
    cpu_us: float


async def engine(servers: str, records: int) -> Run:
    """Our engine with a pass-through stage."""
    source_topic, first, second = await fresh_topics(servers, ["in", "first", "second"], PARTITIONS)
    await fill(servers, source_topic, records=records, value=VALUE, partitions=PARTITIONS)

    async def twice(batch: RecordBatch) -> list[OutputRecord]:
        return [
            OutputRecord(topic, record.key, record.value, record.timestamp, record.headers)
            for topic in (first, second)
            for record in batch.records
        ]

    registry = CollectorRegistry()
    app = create_application("benchmark")
    stage = Stage(app, name="twice", handler=twice)
    subscription = Subscription(
        application="benchmark", bootstrap_servers=servers, topic=source_topic, group=source_topic, max_records=2_000
    )
    source = TransactionalSource(
        subscription=subscription, stage=stage, metrics=StreamMetrics.register(registry).of("twice")
    )

    def done() -> float:
        labels = [{"stage": "twice", "partition": str(number)} for number in range(PARTITIONS)]
        return sum(registry.get_sample_value("constitutional_records_total", label) or 0.0 for label in labels)

    await app.start()
    await source.start()
    run = await _measured(done, records)
    await source.stop()
    await app.stop()
    return run


async def bare(servers: str, records: int) -> Run:
    """A plain aiokafka loop: `send` for each record, one transaction for each poll."""
    source_topic, first, second = await fresh_topics(servers, ["in", "first", "second"], PARTITIONS)
    await fill(servers, source_topic, records=records, value=VALUE, partitions=PARTITIONS)
    consumer = AIOKafkaConsumer(
        source_topic,
        bootstrap_servers=servers,
        group_id=source_topic,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    producer = AIOKafkaProducer(bootstrap_servers=servers, transactional_id=source_topic, max_batch_size=512 * 1024)
    await consumer.start()
    await producer.start()
    handled = 0

    async def loop() -> None:
        nonlocal handled
        while handled < records:
            fetched: dict[TopicPartition, list[Any]] = await consumer.getmany(timeout_ms=100, max_records=2_000)
            if not fetched:
                continue
            async with producer.transaction():
                sent = [
                    await producer.send(topic, key=record.key, value=record.value, timestamp_ms=record.timestamp)
                    for topic in (first, second)
                    for group in fetched.values()
                    for record in group
                ]
                await asyncio.gather(*sent)
                offsets = {place: group[-1].offset + 1 for place, group in fetched.items()}
                await producer.send_offsets_to_transaction(offsets, source_topic)
            handled += sum(map(len, fetched.values()))

    task = asyncio.create_task(loop())
    run = await _measured(lambda: handled, records)
    await task
    await consumer.stop()
    await producer.stop()
    return run


async def faust_streams(servers: str, records: int) -> Run:
    """Faust's own way with its default settings: `stream.events()` and `Topic.send`, without transactions."""
    source_topic, first, second = await fresh_topics(servers, ["in", "first", "second"], PARTITIONS)
    await fill(servers, source_topic, records=records, value=VALUE, partitions=PARTITIONS)
    app = faust.App(
        source_topic,
        broker=f"kafka://{servers}",
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
    )
    source = app.topic(source_topic, value_serializer="raw", key_serializer="raw")
    sinks = [app.topic(name, value_serializer="raw", key_serializer="raw") for name in (first, second)]
    handled = 0

    async def twice(stream: Any) -> None:
        nonlocal handled
        async for event in stream.events():
            for sink in sinks:
                await sink.send(key=event.key, value=event.value)
            handled += 1

    app.agent(source, name="twice")(twice)
    await app.start()
    run = await _measured(lambda: handled, records)
    await app.stop()
    return run


async def _measured(done: Callable[[], float], records: int) -> Run:
    """Measure from the first handled record on, so that joining a group does not count."""
    deadline = time.monotonic() + 120
    await _until(lambda: done() > 0, deadline)
    before, wall, cpu = done(), time.monotonic(), time.process_time()
    await _until(lambda: done() >= records, deadline)
    handled = done() - before
    return Run(handled / (time.monotonic() - wall), (time.process_time() - cpu) / handled * 1e6)


async def _until(condition: Callable[[], bool], deadline: float) -> None:
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the benchmark made no progress in time")
        await asyncio.sleep(0.005)


async def compare(servers: str, rounds: int) -> dict[str, float]:
    """Run the three in turn, `rounds` times, and compare medians."""
    variants: dict[str, Callable[[str, int], Awaitable[Run]]] = {"engine": engine, "bare": bare, "faust": faust_streams}
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, variant in variants.items():
            runs[name].append(await variant(servers, RECORDS[name]))
    speed = {name: median(run.records_per_s for run in found) for name, found in runs.items()}
    return {
        "records_per_s": round(speed["engine"]),
        "cpu_us": round(median(run.cpu_us for run in runs["engine"]), 2),
        "ratio_bare": round(speed["engine"] / speed["bare"], 2),
        "ratio_faust": round(speed["engine"] / speed["faust"], 1),
    }


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap-servers", help="a broker; none starts one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    with broker(arguments.bootstrap_servers) as servers:
        result = asyncio.run(compare(servers, arguments.rounds))
    if not arguments.json:
        print("pass-through, 600-byte records, 4 partitions, one in, two out, one process")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
