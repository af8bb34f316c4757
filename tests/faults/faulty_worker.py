"""A worker that runs the real engine with a pass-through handler, and does to itself the faults it is told to.

It says on standard output what a test waits for: `took-over PARTITION` and `fault KIND POINT PARTITION`.
"""

import argparse
import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from prometheus_client import CollectorRegistry

from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.streams.application import create_application
from ctrainer.streams.source_metrics import StreamMetrics
from ctrainer.streams.stage import Stage
from ctrainer.streams.transactional_source import Subscription, TransactionalSource

POISON = b"poison"


class InjectedError(Exception):
    """The fault `raise`: an error that the engine cannot know."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What to do, where, and after how many passages of that point since the fault before."""

    kind: str
    point: str
    passages: int

    @classmethod
    def parse(cls, text: str) -> Self:
        kind, point, passages = text.split(":")
        return cls(kind, point, int(passages))


class Saboteur:
    """A probe that carries out faults one after the other."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = deque(faults)
        self._passages = 0

    async def __call__(self, point: str, partition: int) -> None:
        if not self._faults or point != self._faults[0].point:
            return
        self._passages += 1
        if self._passages >= self._faults[0].passages:
            self._passages = 0
            self._commit(self._faults.popleft(), partition)

    def _commit(self, fault: Fault, partition: int) -> None:
        say(f"fault {fault.kind} {fault.point} {partition}")
        if fault.kind == "raise":
            raise InjectedError
        os.kill(os.getpid(), signal.Signals[fault.kind])


class PassThrough:
    """One output per input, key and value kept, with the input's partition and offset as a header."""

    def __init__(self, topic: str) -> None:
        self._topic = topic

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        if any(record.value is not None and record.value.startswith(POISON) for record in batch.records):
            raise ValueError("poison")
        return [self._output(record) for record in batch.records]

    def _output(self, record: Record) -> OutputRecord:
        source = f"{record.partition}/{record.offset}".encode()
        return OutputRecord(self._topic, record.key, record.value, record.timestamp, (("source", source),))


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the test reads it


async def took_over(partition: int, _committed: int) -> None:
    say(f"took-over {partition}")


async def serve(arguments: argparse.Namespace) -> None:
    asked_to_end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_end.set)
    app = create_application(arguments.group)
    source = TransactionalSource(
        subscription=Subscription(
            application=arguments.group,
            bootstrap_servers=arguments.bootstrap_servers,
            topic=arguments.source,
            group=arguments.group,
            max_records=arguments.max_records,
            session_timeout_ms=arguments.session_timeout_ms,
        ),
        stage=Stage(app, name="pass-through", handler=PassThrough(arguments.target)),
        metrics=StreamMetrics.register(CollectorRegistry()).of("pass-through"),
        restore=took_over,
        probe=Saboteur(arguments.fault),
    )
    await app.start()
    await source.start()
    await asked_to_end.wait()
    await source.stop()
    await app.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap-servers", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--session-timeout-ms", type=int, default=2_000)
    parser.add_argument("--max-records", type=int, default=25)
    parser.add_argument("--fault", type=Fault.parse, action="append", default=[])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
