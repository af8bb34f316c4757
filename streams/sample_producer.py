"""Sends flywheel records from a JSON Lines file to their topic, bytes untouched, good and bad alike."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer

from ctrainer.schemas.topics import FLYWHEEL_SAMPLES

_IN_FLIGHT = 1_000


async def produce_file(
    path: Path, *, bootstrap_servers: str, security: Mapping[str, Any], sent: Callable[[int], None]
) -> int:
    """Send each non-empty line of `path` as one record; return how many the brokers have acknowledged.

    `sent` is called with the number of records acknowledged so far. A line that is no JSON is sent as it is: judging
    it is the stream's business.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_request_size=16 * 1024 * 1024,
        **security,
    )
    await producer.start()
    try:
        return await _send(producer, _lines(path), sent)
    finally:
        await producer.stop()


def record_key(line: bytes) -> bytes | None:
    """Return `tenant/workload` of a flywheel record, or None where the line does not say.

    >>> record_key(b'{"client_id": "acme", "workload_id": "chat"}')
    b'acme/chat'
    """
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict):
        return None
    tenant, workload = record.get("client_id"), record.get("workload_id")
    return f"{tenant}/{workload}".encode() if isinstance(tenant, str) and isinstance(workload, str) else None


def _lines(path: Path) -> Iterable[bytes]:
    with path.open("rb") as file:
        yield from (line.rstrip(b"\r\n") for line in file if line.strip())


async def _send(producer: AIOKafkaProducer, lines: Iterable[bytes], sent: Callable[[int], None]) -> int:
    waiting: list[asyncio.Future[Any]] = []
    count = 0
    for line in lines:
        waiting.append(await producer.send(FLYWHEEL_SAMPLES, key=record_key(line), value=line))
        if len(waiting) == _IN_FLIGHT:
            count += len(await asyncio.gather(*waiting))
            waiting.clear()
            sent(count)
    count += len(await asyncio.gather(*waiting))
    sent(count)
    return count
