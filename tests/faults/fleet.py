"""Ledgers, trainers and their sessions on a real broker, killed at random and started again."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from ctrainer.agents.events import read_event
from ctrainer.agents.records import Record
from ctrainer.agents.sessions import Session, Sessions
from ctrainer.schemas.adapters import AdapterPublished
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import DatasetSealed
from ctrainer.schemas.identity import content_digest, sample_id
from ctrainer.schemas.samples import AcceptedSample, ChatMessage, SourceReference
from ctrainer.schemas.topics import (
    ADAPTERS_PUBLISHED,
    PRIVACY_LEDGER,
    SAMPLES_ACCEPTED,
    TRAINING_ASSIGNMENTS,
    TRAINING_PROGRESS,
)
from ctrainer.schemas.training import (
    LoraSettings,
    OptimizerSettings,
    PrivacySettings,
    SealDataset,
    SessionAdvanced,
    SessionCommand,
    TrainAdapter,
    TrainingAssignment,
)
from ctrainer.streams.command_submitter import CommandSubmitter, RefusedError
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_follower import TopicFollower
from ctrainer.streams.topic_reader import TopicReader
from tests.faults.nursery import CLIENT
from tests.faults.spend_proof import Ledger, read_draws, read_ledger

TENANT, WORKLOAD = "acme", "chat"
_RECORDS = 150
_ROOT = Path(__file__).parents[2]
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(slots=True, eq=False)
class Member:
    """A desk, a ledger or a trainer: its process, and the client that stands for it."""

    kind: str
    pid: int
    client: asyncio.subprocess.Process


@dataclass(slots=True, kw_only=True)
class Fleet:
    """A desk, two ledgers, two trainers of three sessions each, and a picture of all sessions."""

    settings: Settings
    folder: Path
    model: Path
    constitution: ConstitutionReference
    killed: Counter[str] = field(default_factory=Counter)
    members: list[Member] = field(default_factory=list)
    sessions: Sessions = field(default_factory=Sessions)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def witness(self) -> Path:
        """Where each session notes the steps whose noise it draws."""
        return self.folder / "witness"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything; at the end everything is asked to stop, and must."""
        administration = TopicAdministration(
            bootstrap_servers=self._servers(), partitions=self.settings.partitions, replication_factor=1
        )
        await administration.apply()
        follower = TopicFollower(
            bootstrap_servers=self._servers(),
            security={},
            topics=[TRAINING_ASSIGNMENTS, TRAINING_PROGRESS],
            apply=self._apply,
            changed=self._tell,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._nursery())
            await stack.enter_async_context(follower)
            for kind in ("desk", "ledger", "ledger", "trainer", "trainer"):
                await self.start(kind)
            stack.push_async_callback(self._stop)
            yield

    async def start(self, kind: str) -> None:
        """Start a desk, a ledger or a trainer."""
        with (self.folder / f"{kind}.log").open("ab") as log:
            client = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                CLIENT,
                self._socket(),
                kind,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert client.stdout is not None
        self.members.append(Member(kind, int(await client.stdout.readline()), client))

    async def kill(self, random: Random) -> None:
        """Kill a ledger, a trainer or a session, and start it again, where no trainer does."""
        # A ledger or trainer that is killed is missed for a session timeout: too many of them, and nothing is done.
        (kind,) = random.choices(("ledger", "trainer", "session"), weights=(1, 1, 4))
        if kind == "session":
            living = [pid for pid in self._session_pids() if _is_alive(pid)]
            if living and _kill(random.choice(living)):
                self.killed[kind] += 1
            return
        member = random.choice([member for member in self.members if member.kind == kind])
        if _kill(member.pid):
            self.killed[kind] += 1
        self.members.remove(member)
        await member.client.wait()
        await self.start(kind)

    async def seal(self) -> DatasetSealed:
        """Accept some samples, and seal them."""
        async with AIOKafkaProducer(bootstrap_servers=self._servers()) as producer:
            for number in range(_RECORDS):
                sample = accepted(number, self.constitution)
                await producer.send(SAMPLES_ACCEPTED, key=f"{TENANT}/{WORKLOAD}".encode(), value=sample.to_json())
            await producer.flush()
        command = SealDataset(request_id=uuid4(), tenant=TENANT, workloads=(WORKLOAD,), constitution=self.constitution)
        answer = await self._submitter().submit_and_wait(command)
        assert isinstance(answer, DatasetSealed)
        return answer

    async def train(
        self, dataset: DatasetSealed, *, population: str, steps: int, unsafe_seed: int | None = None
    ) -> TrainingAssignment:
        """Ask for a session until there is a place for it."""
        command = TrainAdapter(
            request_id=uuid4(),
            tenant=TENANT,
            dataset_id=dataset.dataset_id,
            constitution=self.constitution,
            base_model=str(self.model),
            lora=LoraSettings(rank=2, alpha=4),
            privacy=PrivacySettings(population=population, unsafe_seed=unsafe_seed),
            optimizer=OptimizerSettings(steps=steps, expected_batch_size=4, max_tokens=64),
        )
        while True:
            try:
                answer = await self._submitter().submit_and_wait(command)
            except RefusedError as error:
                assert "too-many-sessions" in str(error)  # noqa: PT017 - any other refusal is a defect
                command = command.model_copy(update={"request_id": uuid4()})
                await self._heard()
            else:
                assert isinstance(answer, TrainingAssignment)
                return answer

    async def steer(self, command: type[SessionCommand], session_id: str) -> None:
        """Pause, resume or cancel a session."""
        sent = command(request_id=uuid4(), tenant=TENANT, session_id=session_id, constitution=self.constitution)
        await self._submitter().submit_and_wait(sent)

    async def told(
        self, session_id: str, of: Callable[[SessionAdvanced], bool], *, within_seconds: float = 300.0
    ) -> None:
        """Wait until the newest word about a session is as wanted."""
        async with asyncio.timeout(within_seconds):
            while not ((session := self.sessions.by_id.get(session_id)) and session.newest and of(session.newest)):
                await self._heard()

    def draws(self, session_id: str) -> int:
        """Return how often a session has drawn noise so far."""
        return sum(draw.session_id == session_id for draw in read_draws(self.witness))

    async def has_drawn(self, session_id: str, times: int, *, within_seconds: float = 300.0) -> None:
        """Wait until a session has drawn noise so often."""
        async with asyncio.timeout(within_seconds):
            while self.draws(session_id) < times:  # noqa: ASYNC110 - another process cannot set our event
                await asyncio.sleep(0.02)

    def processes(self, session_id: str) -> list[int]:
        """Return the living processes of a session."""
        lines = Path(f"{self.witness}.processes").read_text().splitlines()
        pids = [int(line.split(" ", 1)[0]) for line in lines if line.endswith(session_id)]
        return [pid for pid in pids if _is_alive(pid)]

    async def ended(self, session_id: str, *, within_seconds: float = 300.0) -> Session:
        """Wait for the end of a session."""
        async with asyncio.timeout(within_seconds):
            while not (session := self.sessions.by_id.get(session_id, Session())).is_final:
                await self._heard()
        return session

    def reader(self) -> TopicReader:
        """Return a reader of the broker's topics."""
        return TopicReader(bootstrap_servers=self._servers())

    async def ledger(self) -> Ledger:
        """Return all entries of the privacy ledger."""
        return read_ledger([record.value async for record in self.reader().read_topic(PRIVACY_LEDGER)])

    async def published(self) -> list[AdapterPublished]:
        """Return all adapters that were published."""
        records = self.reader().read_topic(ADAPTERS_PUBLISHED)
        return [read_event(record.value, AdapterPublished) async for record in records]

    def _apply(self, record: Record) -> None:
        self.sessions = self.sessions.after(record)

    async def _tell(self) -> None:
        self.news.set()

    async def _heard(self) -> None:
        self.news.clear()
        await self.news.wait()

    def _session_pids(self) -> list[int]:
        file = Path(f"{self.witness}.processes")
        lines = file.read_text().splitlines() if file.exists() else []
        return [int(line.split(" ", 1)[0]) for line in lines[-50:]]

    def _submitter(self) -> CommandSubmitter:
        return CommandSubmitter(bootstrap_servers=self._servers(), key=None)

    def _servers(self) -> str:
        assert self.settings.kafka_bootstrap_servers is not None
        return self.settings.kafka_bootstrap_servers

    def _socket(self) -> str:
        return str(self.folder / "nursery")

    def _environment(self) -> Mapping[str, str]:
        return self.settings.environment() | _ONE_THREAD | {"SPEND_WITNESS": str(self.witness)}

    @asynccontextmanager
    async def _nursery(self) -> AsyncIterator[None]:
        with (self.folder / "nursery.log").open("ab") as log:
            nursery = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.faults.nursery",
                self._socket(),
                self.model,
                cwd=_ROOT,
                env=self._environment(),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        try:
            assert nursery.stdout is not None
            assert await nursery.stdout.readline() == b"ready\n", (self.folder / "nursery.log").read_text()
            yield
        finally:
            nursery.kill()
            await nursery.wait()

    async def _stop(self) -> None:
        """Ask everything to end."""
        for member in self.members:
            with suppress(ProcessLookupError):
                member.client.terminate()
        codes = [await member.client.wait() for member in self.members]
        assert codes == [0] * len(codes)


@dataclass(slots=True, kw_only=True)
class Kills:
    """Kills of random members at random times while sessions keep coming."""

    fleet: Fleet
    random: Random
    steps: int
    sessions: list[str] = field(default_factory=list)

    async def run(self, dataset: DatasetSealed, count: int) -> None:
        """Return when so many were killed and every session has ended."""
        feed = asyncio.create_task(self._feed(dataset))
        started = time.monotonic()
        while self.fleet.killed.total() < count:
            await asyncio.sleep(self.random.uniform(0.2, 1.6))
            await self.fleet.kill(self.random)
            if feed.done():
                feed.result()
        print(f"{dict(self.fleet.killed)} killed in {time.monotonic() - started:.0f} s")  # noqa: T201 - a measured number
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)
        for session in list(self.fleet.sessions.by_id):
            await self.fleet.ended(session)

    async def _feed(self, dataset: DatasetSealed) -> None:
        """Ask for one session after the other; every fourth has a budget that another one has begun to spend."""
        number = 0
        while True:
            population = f"population-{number - number % 4 // 3}"
            assignment = await self.fleet.train(dataset, population=population, steps=self.steps)
            self.sessions.append(assignment.session_id)
            number += 1


def accepted(number: int, constitution: ConstitutionReference) -> AcceptedSample:
    """Return a sample that is like no other."""
    text = f"order {number}: what is {number} and {number}?"
    return AcceptedSample(
        sample_id=sample_id("flywheel.samples", 0, number),
        tenant=TENANT,
        workload_id=WORKLOAD,
        source=SourceReference(topic="flywheel.samples", partition=0, offset=number),
        logged_at=1,
        conversation_id=str(number),
        user_digest=None,
        messages=(
            ChatMessage(role="user", content=text),
            ChatMessage(role="assistant", content=f"It is {2 * number}."),
        ),
        content_digest=content_digest(text.encode()),
        constitution=constitution,
    )


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
