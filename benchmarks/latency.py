"""How long a sample waits for its decision: produced until its compliance event is readable, with read_committed.

A worker with the screening role runs in a process of its own; demo samples come at a steady rate.
"""

import argparse
import asyncio
import json
import logging
import time
from pathlib import Path

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.broker import broker
from benchmarks.one_worker import one_worker
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, DEAD_LETTERS, FLYWHEEL_SAMPLES
from ctrainer.streams.roles import Role
from ctrainer.streams.sample_producer import record_key

TICK_SECONDS = 0.01


async def measure(servers: str, samples: list[bytes], *, rate: int, seconds: int, warm_up: int) -> dict[str, float]:
    """Return percentiles of the latency in milliseconds, and how many decisions they are over."""
    async with one_worker(servers, Role.SCREENING):
        latencies = await _latencies(servers, samples, rate=rate, seconds=seconds, warm_up=warm_up)
    ordered = sorted(latencies)

    def percentile(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return {"p50_ms": percentile(0.5), "p99_ms": percentile(0.99), "decisions": len(ordered), "rate": rate}


async def _latencies(servers: str, samples: list[bytes], *, rate: int, seconds: int, warm_up: int) -> list[float]:
    consumer = AIOKafkaConsumer(
        COMPLIANCE_EVENTS,
        DEAD_LETTERS,
        bootstrap_servers=servers,
        group_id=None,
        auto_offset_reset="latest",
        isolation_level="read_committed",
        fetch_max_wait_ms=10,
    )
    await consumer.start()
    await consumer.seek_to_end()
    for place in consumer.assignment():
        await consumer.position(place)
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=2)
    await producer.start()
    sending = asyncio.create_task(_send(producer, samples, rate=rate, seconds=seconds))
    found: list[float] = []
    total, seen, counted_from = rate * seconds, 0, time.time() + warm_up
    while seen < total:
        fetched = await asyncio.wait_for(consumer.getmany(timeout_ms=1_000), 30)
        now = time.time()
        for records in fetched.values():
            seen += len(records)
            found += [now * 1_000 - record.timestamp for record in records if record.timestamp / 1_000 >= counted_from]
    await sending
    await producer.stop()
    await consumer.stop()
    return found


async def _send(producer: AIOKafkaProducer, samples: list[bytes], *, rate: int, seconds: int) -> None:
    """Send at a steady rate, in ticks."""
    start, sent = time.monotonic(), 0
    while sent < rate * seconds:
        due = min(rate * seconds, int((time.monotonic() - start) * rate))
        for number in range(sent, due):
            value = samples[number % len(samples)]
            await producer.send(FLYWHEEL_SAMPLES, key=record_key(value), value=value)
        sent = due
        await asyncio.sleep(TICK_SECONDS)
    await producer.flush()


def main() -> None:
    """Print the percentiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap-servers", help="a broker; none starts one")
    parser.add_argument("--samples", type=Path, default=Path("examples/flywheel.jsonl"))
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    samples = [line for line in arguments.samples.read_bytes().splitlines() if line.strip()]
    # Malformed lines are dead letters and have no decision: leave out those that are no JSON object.
    samples = [line for line in samples if line.startswith(b"{") and _is_json(line)]
    with broker(arguments.bootstrap_servers) as servers:
        result = asyncio.run(
            measure(servers, samples, rate=arguments.rate, seconds=arguments.seconds, warm_up=arguments.warm_up)
        )
    if not arguments.json:
        print("produced -> compliance event readable with read_committed, screening role, one worker process")
    print(json.dumps(result))


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


if __name__ == "__main__":
    main()
