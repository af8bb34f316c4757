"""What judging a sample costs: offline, with its Kafka transaction, beside others, and the policy by itself.

The corpus is mixed from public sets (benchmarks/corpus.py). CPU is that of this process. `--peers` names the Python of
an environment with presidio-analyzer, scrubadub, datafog and nemoguardrails (benchmarks/peers.py).
"""

import argparse
import asyncio
import json
import logging
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

from aiokafka import AIOKafkaProducer
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from benchmarks.broker import broker, fresh_topics
from benchmarks.corpus import corpus, texts
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import PolicyEngine, RegorusEngine, bundle_of
from ctrainer.agents.compliance.shape import shape
from ctrainer.agents.compliance.verdicts import Case
from ctrainer.agents.force import appoint
from ctrainer.agents.records import OutputRecord, RecordBatch
from ctrainer.agents.screening import Screening
from ctrainer.agents.tally import Tally
from ctrainer.schemas.topics import AUDIT_EVENTS, COMPLIANCE_EVENTS
from ctrainer.streams.application import create_application
from ctrainer.streams.embedded import opa_server
from ctrainer.streams.garbage_collection import search_seldom
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.policy.opa import OpaEngine
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.transactional_source import Subscription, TransactionalSource

PARTITIONS = 4
TIMES = 12
"""So often the corpus goes through Kafka."""
CONSTITUTION = default_constitution()
COURT = Court(CONSTITUTION)
Numbers = dict[str, float | None]


def offline(records: list[bytes], rounds: int) -> Numbers:
    """Shape, detectors, harm score, policy and redaction, in one process without Kafka."""
    engine = RegorusEngine(bundle_of(CONSTITUTION))
    verdicts = COURT.verdicts(engine)

    async def decide() -> None:
        for start in range(0, len(records), 250):
            examined = COURT.examine_all([shape(value) for value in records[start : start + 250]])
            decisions = await verdicts.of([one.case for one in examined])
            for one in examined:
                COURT.conclude(one, decisions[one.case])

    asyncio.run(decide())
    shaped = [shape(value) for value in records]
    whole = median(_microseconds(lambda: asyncio.run(decide()), len(records)) for _ in range(rounds))
    looking = median(_microseconds(lambda: COURT.examine_all(shaped), len(records)) for _ in range(rounds))
    return {"cpu_us_offline": whole, "cpu_us_detectors": looking}


def _microseconds(work: Callable[[], object], count: int) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) / count * 1e6


async def through_kafka(servers: str, records: list[bytes]) -> Numbers:
    """The whole stage on a real broker: one transaction for each batch, three records out for each accepted sample."""
    administration = TopicAdministration(bootstrap_servers=servers, partitions=PARTITIONS, replication_factor=1)
    await administration.apply()
    (topic,) = await fresh_topics(servers, ["samples"], PARTITIONS)
    await _fill(servers, topic, records)
    judges = appoint(COURT, RegorusEngine(bundle_of(CONSTITUTION)))
    screening = Screening(judges=lambda: judges)

    async def handle(batch: RecordBatch) -> list[OutputRecord]:
        outputs = await screening(batch)
        audited = (output._replace(topic=AUDIT_EVENTS) for output in outputs if output.topic == COMPLIANCE_EVENTS)
        return [*outputs, *audited]

    registry, app = CollectorRegistry(), create_application("benchmark")
    source = TransactionalSource(
        subscription=Subscription(
            application="benchmark", bootstrap_servers=servers, topic=topic, group=topic, max_records=1_000
        ),
        stage=Stage(app, name="screening", handler=handle),
        metrics=StreamMetrics.register(registry).of("screening"),
    )

    def done() -> float:
        labels = [{"stage": "screening", "partition": str(number)} for number in range(PARTITIONS)]
        return sum(registry.get_sample_value("constitutional_records_total", label) or 0.0 for label in labels)

    await app.start()
    await source.start()
    await _until(lambda: done() > 0)
    before, cpu, wall = done(), time.process_time(), time.monotonic()
    await _until(lambda: done() >= len(records) * TIMES)
    handled = done() - before
    cpu_us, per_second = (time.process_time() - cpu) / handled * 1e6, handled / (time.monotonic() - wall)
    await source.stop()
    await app.stop()
    return {"cpu_us_kafka": cpu_us, "samples_per_s_kafka": per_second}


async def _fill(servers: str, topic: str, records: list[bytes]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=512 * 1024, linger_ms=5)
    await producer.start()
    sent = [
        await producer.send(topic, key=b"benchmark/mixed", value=value, partition=number % PARTITIONS)
        for number, value in enumerate(records * TIMES)
    ]
    await asyncio.gather(*sent)
    await producer.stop()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(180):
        while not condition():  # noqa: ASYNC110 - a counter has no event
            await asyncio.sleep(0.005)


async def policy(records: list[bytes]) -> Numbers:
    """The policy alone: from memory on Zipf traffic, in process, and by a real OPA over HTTP at 1,000 a second."""
    cases = list({COURT.examine(shape(value)).case for value in records})
    inputs = [case.policy_input(COURT.reference.digest) for case in cases]
    local = RegorusEngine(bundle_of(CONSTITUTION))
    found: Numbers = {"policy_p99_ms_in_process": await _p99(local, inputs)}
    found |= await _cached(cases, local)
    executable = opa_server.executable()
    if executable is None:
        return found | {"policy_p99_ms_http": None}
    with tempfile.TemporaryDirectory() as folder:
        server = opa_server.OpaServer(folder=Path(folder), executable=executable)
        connection = EngineConnection(server.start(bundle_of(CONSTITUTION)), deadline_seconds=5.0, connections=8)
        try:
            opa = OpaEngine(connection, revision=local.revision)
            return found | await _paced(opa, inputs)
        finally:
            await connection.close()
            server.stop()


async def _p99(engine: PolicyEngine, inputs: list[dict[str, object]]) -> float:
    took = []
    for one in inputs * max(1, 2_000 // len(inputs)):
        started = time.perf_counter()
        await engine.evaluate([one])
        took.append((time.perf_counter() - started) * 1e3)
    return quantiles(took, n=100)[98]


async def _cached(cases: list[Case], engine: PolicyEngine) -> Numbers:
    """Ask for single cases as Zipf's law has them, of 1,000 workloads."""
    tally = Tally()
    verdicts = COURT.verdicts(engine, answers=tally.answers)
    chance = random.Random(3)
    world = [replace(case, workload=f"workload-{number}") for number, case in enumerate(cases * 8)][:1_000]
    weights = [1 / rank for rank in range(1, len(world) + 1)]
    took = []
    for case in chance.choices(world, weights, k=200_000):
        started = time.perf_counter()
        await verdicts.of([case])
        took.append((time.perf_counter() - started) * 1e3)
    hits = tally.answers["memory"] / sum(tally.answers.values())
    return {"policy_p99_ms_cached": quantiles(took, n=100)[98], "cache_hit_rate": hits}


async def _paced(engine: PolicyEngine, inputs: list[dict[str, object]]) -> Numbers:
    """Ask 5,000 single questions, one each millisecond, whether or not earlier ones are answered."""
    took: list[float] = []

    async def ask(number: int) -> None:
        started = time.perf_counter()
        await engine.evaluate([inputs[number % len(inputs)]])
        took.append((time.perf_counter() - started) * 1e3)

    await asyncio.gather(*(ask(number) for number in range(50)))
    took.clear()
    begun = time.perf_counter()
    asked = []
    for number in range(5_000):
        asked.append(asyncio.create_task(ask(number)))
        await asyncio.sleep(max(0.0, begun + (number + 1) / 1_000 - time.perf_counter()))
    await asyncio.gather(*asked)
    spread = quantiles(took, n=100)
    return {"policy_p50_ms_http": spread[49], "policy_p99_ms_http": spread[98]}


def peers(python: Path | None, records: list[bytes], detectors_us: float) -> Numbers:
    """How many times as long as our detectors others take for the same texts, where they are installed."""
    if python is None:
        return {"ratio_presidio": None}
    program = Path(__file__).with_name("peers.py")
    patterns = [rule.pattern for one in CONSTITUTION.principles for rule in one.rules if rule.pattern is not None]
    given = json.dumps({"texts": texts(records), "patterns": patterns})
    done = subprocess.run(  # noqa: S603 - our own program
        [python, program], input=given, capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    presidio = found.get("presidio_analyzer")
    return {
        **{f"cpu_us_{name}": cost for name, cost in found.items()},
        "ratio_presidio": presidio / detectors_us if presidio else None,
    }


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("..") / "shared" / "data", help="folder of the public sets")
    parser.add_argument("--peers", type=Path, help="the Python of an environment with the peers")
    parser.add_argument("--bootstrap-servers", help="a broker; none starts one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    records = corpus(arguments.data)
    search_seldom()
    found = offline(records, arguments.rounds)
    found |= peers(arguments.peers, records, found["cpu_us_detectors"] or 0.0)
    found |= asyncio.run(policy(records))
    with broker(arguments.bootstrap_servers) as servers:
        found |= asyncio.run(through_kafka(servers, records))
    if not arguments.json:
        print(
            f"{len(records)} samples, mean {sum(map(len, records)) / len(records):.0f} bytes, {arguments.rounds} rounds"
        )
    print(json.dumps({name: None if value is None else round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
