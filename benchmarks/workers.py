"""Two workers against one on a CPU-bound stage, and a worker's memory at 100 thousand and a million records."""

import argparse
import asyncio
import hashlib
import json
import logging
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry

from benchmarks.broker import broker, fill, fresh_topics
from ctrainer.agents.records import Handler, OutputRecord, RecordBatch
from ctrainer.streams.application import create_application
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.transactional_source import Subscription, TransactionalSource

PARTITIONS = 4
VALUE = b"x" * 600
HASHES = 200
REPORT_SECONDS = 0.2


def busy(topic: str) -> Handler:
    """Return a stage that spends about a hundred microseconds of CPU on each record."""

    async def handle(batch: RecordBatch) -> list[OutputRecord]:
        for record in batch.records:
            for _ in range(HASHES):
                hashlib.sha256(record.value or b"").digest()
        return passed(batch, topic)

    return handle


def plain(topic: str) -> Handler:
    """Return a stage that passes records on."""

    async def handle(batch: RecordBatch) -> list[OutputRecord]:
        return passed(batch, topic)

    return handle


def passed(batch: RecordBatch, topic: str) -> list[OutputRecord]:
    """Return the batch's records for another topic."""
    return [OutputRecord(topic, record.key, record.value, record.timestamp) for record in batch.records]


async def work(servers: str, source_topic: str, sink: str, *, is_busy: bool) -> None:
    """Run a worker until it is killed; print what it has handled and its memory, in MiB, a few times a second."""
    registry = CollectorRegistry()
    app = create_application("benchmark")
    stage = Stage(app, name="stage", handler=busy(sink) if is_busy else plain(sink))
    subscription = Subscription(
        application="benchmark", bootstrap_servers=servers, topic=source_topic, group=source_topic, max_records=500
    )
    source = TransactionalSource(
        subscription=subscription, stage=stage, metrics=StreamMetrics.register(registry).of("stage")
    )
    await app.start()
    await source.start()
    while True:
        labels = [{"stage": "stage", "partition": str(number)} for number in range(PARTITIONS)]
        handled = sum(registry.get_sample_value("constitutional_records_total", label) or 0.0 for label in labels)
        print(json.dumps({"handled": handled, "rss_mib": resident_mib()}), flush=True)
        await asyncio.sleep(REPORT_SECONDS)


def resident_mib() -> float:
    """Return the resident memory of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@contextmanager
def worker(servers: str, source_topic: str, sink: str, *options: str) -> Iterator[Iterator[dict[str, float]]]:
    """Run a worker process; yields its reports."""
    command = [sys.executable, "-m", "benchmarks.workers", "--work", servers, source_topic, sink, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this very program
    try:
        yield (json.loads(line) for line in process.stdout or ())
    finally:
        process.kill()
        process.wait()


def scaling(servers: str, records: int) -> float:
    """Return records per second of two busy workers over those of one."""
    speeds = []
    for count in (1, 2):
        source_topic, sink = asyncio.run(prepared(servers, records))
        with ExitStack() as stack:
            reports = [stack.enter_context(worker(servers, source_topic, sink, "--busy")) for _ in range(count)]
            speeds.append(speed(reports, records))
    return speeds[1] / speeds[0]


def speed(reports: Sequence[Iterator[dict[str, float]]], records: int) -> float:
    """Return records per second of some workers together, from a tenth of the records on."""
    started: tuple[float, float] | None = None
    while True:
        handled = sum(next(report)["handled"] for report in reports)
        now = time.monotonic()
        if started is None and handled >= records / 10:
            started = (now, handled)
        if started is not None and handled >= records:
            return (handled - started[1]) / (now - started[0])


def memory(servers: str, few: int, many: int) -> tuple[float, float]:
    """Return a worker's memory after few and after many records, in MiB."""
    source_topic, sink = asyncio.run(prepared(servers, many))
    with worker(servers, source_topic, sink) as reports:
        early = next(report["rss_mib"] for report in reports if report["handled"] >= few)
        late = next(report["rss_mib"] for report in reports if report["handled"] >= many)
    return early, late


async def prepared(servers: str, records: int) -> tuple[str, str]:
    """Return a filled source topic and an empty sink."""
    source_topic, sink = await fresh_topics(servers, ["in", "out"], PARTITIONS)
    await fill(servers, source_topic, records=records, value=VALUE, partitions=PARTITIONS)
    return source_topic, sink


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap-servers", help="a broker; none starts one")
    parser.add_argument("--work", nargs=3, metavar=("SERVERS", "SOURCE", "SINK"), help=argparse.SUPPRESS)
    parser.add_argument("--busy", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    if arguments.work:
        asyncio.run(work(*arguments.work, is_busy=arguments.busy))
        return
    with broker(arguments.bootstrap_servers) as servers:
        few, many = memory(servers, 100_000, 1_000_000)
        ratio = scaling(servers, 60_000)
    if not arguments.json:
        print("memory of a worker after 100k and 1M records; two busy workers over one (the broker shares the cores)")
    print(
        json.dumps(
            {
                "rss_mib_100k": round(few, 1),
                "rss_mib_1m": round(many, 1),
                "memory_ratio": round(many / few, 3),
                "two_over_one": round(ratio, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
