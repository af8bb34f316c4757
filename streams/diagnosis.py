"""What `ctrainer doctor` looks at: each check is one function that returns one finding."""

import importlib.metadata
import platform
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from aiokafka.errors import KafkaError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ctrainer.agents.compliance.guard import Question
from ctrainer.agents.compliance.policy import bundle_of
from ctrainer.agents.revision_halts import Halted, halts
from ctrainer.agents.sessions import Sessions
from ctrainer.agents.world import Topics
from ctrainer.schemas.compliance import Guarded
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.topics import DAY_MS, SAMPLES_SLOW_LANE, TOPICS, TRAINING_ASSIGNMENTS, TRAINING_PROGRESS
from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.device_memory import DeviceMemory, SystemMemory
from ctrainer.streams.guard.guards import connect_guard, guard_model, guard_of
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.keyring import read_keyring, read_signing_key
from ctrainer.streams.location import locate
from ctrainer.streams.policy.engines import connect
from ctrainer.streams.policy.opa import OpaEngine
from ctrainer.streams.review_list import samples_in_review
from ctrainer.streams.settings import PolicyContract, Settings
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader

_HARMLESS = Question(None, "How do I bake bread?")
_ENOUGH_DISK_BYTES = 5 * 1024**3
_LONG_WAIT_SECONDS = 600.0
_LONG_REVIEW = 0.5
"""Of the time for which the slow lane keeps a sample."""


class Health(StrEnum):
    """How a check ended."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing the doctor looked at."""

    check: str
    health: Health
    detail: str


async def diagnose(settings: Settings) -> list[Finding]:
    """Return every finding; nothing is changed."""
    return [
        _versions(),
        await _kafka(settings),
        await _redis(settings),
        _constitution(settings),
        await _policy(settings),
        await _guard(settings),
        _requesters(settings),
        await _of_topics("sessions", settings, _sessions),
        await _of_topics("revision", settings, _revision),
        await _of_topics("review", settings, _review),
        _receipts(settings),
        _unsafe(settings),
        _accelerator(),
        _memory(SystemMemory()),
        _disk(settings),
    ]


def _versions() -> Finding:
    ours = importlib.metadata.version("constitutional-trainer")
    return Finding(check="version", health=Health.GOOD, detail=f"ctrainer {ours}, Python {platform.python_version()}")


async def _kafka(settings: Settings) -> Finding:
    try:
        servers = locate(settings).bootstrap_servers
        administration = TopicAdministration(
            bootstrap_servers=servers,
            partitions=settings.partitions,
            replication_factor=settings.replication_factor,
            security=client_security(settings),
        )
        differences = await administration.check()
    except (ConstitutionalTrainerError, KafkaError) as error:
        return Finding(check="kafka", health=Health.BAD, detail=str(error))
    if differences:
        return Finding(check="kafka", health=Health.BAD, detail=f"{servers}: {'; '.join(differences)}")
    return Finding(check="kafka", health=Health.GOOD, detail=f"{servers}: every topic is as the table says")


async def _redis(settings: Settings) -> Finding:
    try:
        url = locate(settings).redis_url
    except ConstitutionalTrainerError as error:
        return Finding(check="redis", health=Health.WARNING, detail=str(error))
    if url is None:
        return Finding(
            check="redis", health=Health.WARNING, detail="no REDIS_URL: verdicts are not shared, only slower"
        )
    # A URL may hold a password: only the place is shown.
    place = urlsplit(url).netloc.rpartition("@")[2]
    redis = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        detail = f"{place}: {type(error).__name__}; screening is only slower"
        return Finding(check="redis", health=Health.WARNING, detail=detail)
    finally:
        await redis.aclose()
    if settings.cache_key_file is None and settings.redis_url is not None:
        detail = f"{place}: no CTRAINER_CACHE_KEY_FILE: only processes of one state folder share verdicts"
        return Finding(check="redis", health=Health.WARNING, detail=detail)
    return Finding(check="redis", health=Health.GOOD, detail=place)


def _constitution(settings: Settings) -> Finding:
    try:
        constitution = read_constitution(settings)
    except ConstitutionalTrainerError as error:
        return Finding(check="constitution", health=Health.BAD, detail=str(error))
    detail = (
        f"{constitution.id} {constitution.version}, {len(constitution.principles)} principles, {constitution.digest}"
    )
    return Finding(check="constitution", health=Health.GOOD, detail=detail)


async def _policy(settings: Settings) -> Finding:
    if settings.policy_url is None:
        return Finding(check="policy", health=Health.GOOD, detail="evaluated in process")
    place = urlsplit(settings.policy_url).netloc.rpartition("@")[2]
    try:
        connection = connect(settings)
        if connection is None or settings.policy_contract is not PolicyContract.OPA:
            return Finding(check="policy", health=Health.GOOD, detail=f"{place} may veto; it is not asked here")
        try:
            await OpaEngine(connection, revision=bundle_of(read_constitution(settings)).revision).require()
        finally:
            await connection.close()
    except ConstitutionalTrainerError as error:
        detail = f"{place}: {error}; the policy in process decides"
        return Finding(check="policy", health=Health.WARNING, detail=detail)
    return Finding(check="policy", health=Health.GOOD, detail=f"{place} holds our revision")


async def _guard(settings: Settings) -> Finding:
    if settings.guard_url is None and settings.guard_encoder is None:
        return Finding(check="guard model", health=Health.GOOD, detail="none: the harm score judges alone")
    place = str(settings.guard_encoder or urlsplit(settings.guard_url or "").netloc.rpartition("@")[2])
    try:
        connection = connect_guard(settings)
        model = guard_model(settings, connection)
        guard_of(read_constitution(settings), settings, model)
        (answer,) = await model.answers([_HARMLESS]) if model else [Guarded.UNAVAILABLE]
        if connection is not None:
            await connection.close()
    except ConstitutionalTrainerError as error:
        return Finding(check="guard model", health=Health.BAD, detail=f"{place}: {error}")
    if isinstance(answer, Guarded):
        then = "the harm score judges alone" if settings.unsafe_judge_without_guard else "samples are parked"
        return Finding(check="guard model", health=Health.WARNING, detail=f"{place}: {answer.value}; {then}")
    return Finding(check="guard model", health=Health.GOOD, detail=f"{place}, asked {settings.guard_ask}")


def _requesters(settings: Settings) -> Finding:
    return _of_file(
        "requesters",
        settings.requesters,
        missing="no CTRAINER_REQUESTERS: every training command is refused; `ctrainer keys create` makes a keyring",
        read=lambda path: f"{len(read_keyring(path))} keys in {path}",
    )


def _of_file(check: str, path: Path | None, *, missing: str, read: Callable[[Path], str]) -> Finding:
    """Return what a file of keys holds, as `read` says it; a warning where there is none."""
    if path is None:
        return Finding(check=check, health=Health.WARNING, detail=missing)
    try:
        return Finding(check=check, health=Health.GOOD, detail=read(path))
    except ConstitutionalTrainerError as error:
        return Finding(check=check, health=Health.BAD, detail=str(error))


async def _of_topics(check: str, settings: Settings, read: Callable[[Topics, Settings], Awaitable[Finding]]) -> Finding:
    """Return what topics tell, as `read` says it; a warning where they cannot be read."""
    try:
        topics = TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
        return await read(topics, settings)
    except (ConstitutionalTrainerError, KafkaError) as error:
        return Finding(check=check, health=Health.WARNING, detail=str(error))


async def _sessions(topics: Topics, _: Settings) -> Finding:
    waiting = await longest_wait(topics, now_ms=int(time.time() * 1_000))
    if waiting > _LONG_WAIT_SECONDS:
        detail = (
            f"a session has waited {waiting / 60:.0f} min for a trainer, or for memory; does `ctrainer trainer` run?"
        )
        return Finding(check="sessions", health=Health.WARNING, detail=detail)
    return Finding(check="sessions", health=Health.GOOD, detail="none waits long for a trainer")


async def _revision(topics: Topics, settings: Settings) -> Finding:
    return halted_revision(await halts(topics), settings.revision_model)


def halted_revision(halted: Iterable[Halted], model: str) -> Finding:
    """Return whether what waits to be rewritten by a model waits for a person."""
    partitions = sorted(one.partition for one in halted if one.model == model)
    if partitions:
        detail = f"{model} has collapsed: partitions {partitions} wait; mend it and say so by `ctrainer review resume`"
        return Finding(check="revision", health=Health.WARNING, detail=detail)
    return Finding(check="revision", health=Health.GOOD, detail=f"{model} is halted nowhere")


async def _review(topics: Topics, _: Settings) -> Finding:
    waiting = [found.since async for found in samples_in_review(topics)]
    return awaited_review(waiting, now_ms=int(time.time() * 1_000))


def awaited_review(since: Sequence[int], *, now_ms: int) -> Finding:
    """Return whether a sample that waits for a person since some milliseconds of Unix time is soon forgotten."""
    kept, longest = TOPICS[SAMPLES_SLOW_LANE].retention_ms, now_ms - min(since, default=now_ms)
    waits = f"{len(since)} samples wait for a person"
    if longest > kept * _LONG_REVIEW:
        detail = f"{waits}, one for {longest // DAY_MS} days: after {kept // DAY_MS} it is gone; `ctrainer review list`"
        return Finding(check="review", health=Health.WARNING, detail=detail)
    return Finding(check="review", health=Health.GOOD, detail=f"{waits}, none for long")


async def longest_wait(reader: Topics, *, now_ms: int) -> float:
    """Return for how many seconds the longest waiting session that is to be trained was begun by no trainer."""
    sessions, since = Sessions(), dict[str, int]()
    for topic in (TRAINING_ASSIGNMENTS, TRAINING_PROGRESS):
        async for record in reader.read_topic(topic):
            sessions = sessions.after(record)
            since[(record.key or b"").decode("utf-8", "replace")] = record.timestamp
    waits = [now_ms - since[name] for name, session in sessions.by_id.items() if session.waits_for_trainer]
    return max(waits, default=0) / 1_000


def _receipts(settings: Settings) -> Finding:
    return _of_file(
        "receipts",
        settings.receipt_key,
        missing="no CTRAINER_RECEIPT_KEY: trainers leave receipts unsigned; `ctrainer keys create` makes a key",
        read=lambda path: f"signed by key {read_signing_key(path).key_id}",
    )


def _unsafe(settings: Settings) -> Finding:
    unsafe = settings.unsafe()
    if unsafe:
        return Finding(check="guarantees", health=Health.WARNING, detail=f"weakened by {', '.join(unsafe)}")
    return Finding(check="guarantees", health=Health.GOOD, detail="no unsafe setting is in force")


def _accelerator() -> Finding:
    # torch takes seconds to import; only the doctor and the training session need it.
    import torch  # noqa: PLC0415

    if torch.cuda.is_available():
        return Finding(check="accelerator", health=Health.GOOD, detail=torch.cuda.get_device_name(0))
    return Finding(check="accelerator", health=Health.GOOD, detail="none: training runs on the CPU")


def _memory(device: DeviceMemory) -> Finding:
    room = device.room()
    if room is None:
        detail = "cannot be told: sessions do not wait for it, only for --parallel-sessions of the trainer"
        return Finding(check="memory", health=Health.WARNING, detail=detail)
    place = "the GPU" if room.halves else "this machine"
    detail = f"{room.free / 1024**3:.1f} of {room.total / 1024**3:.1f} GiB of {place} are free; sessions wait for it"
    return Finding(check="memory", health=Health.GOOD, detail=detail)


def _disk(settings: Settings) -> Finding:
    settings.state_folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(settings.state_folder).free
    health = Health.GOOD if free >= _ENOUGH_DISK_BYTES else Health.WARNING
    return Finding(check="disk", health=health, detail=f"{free / 1024**3:.1f} GiB free at {settings.state_folder}")
