"""The whole main job on one machine: real Kafka, a real model, and a table at the end that must balance."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import orjson

from ctrainer.agents.records import Record
from ctrainer.schemas.adapters import AdapterPublished
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import DatasetSealed
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.topics import (
    ADAPTERS_PUBLISHED,
    COMPLIANCE_EVENTS,
    DEAD_LETTERS,
    FLYWHEEL_SAMPLES,
    TRAINING_PROGRESS,
)
from ctrainer.schemas.training import (
    FINAL_STATES,
    OptimizerSettings,
    PrivacySettings,
    SealDataset,
    SessionAdvanced,
    SessionState,
    TrainAdapter,
    TrainingAssignment,
)
from ctrainer.streams.adapter_files import beside
from ctrainer.streams.child_process import ChildProcess
from ctrainer.streams.command_submitter import CommandSubmitter
from ctrainer.streams.demo_result import DemoResult, count_outcomes
from ctrainer.streams.embedded.ports import free_port
from ctrainer.streams.event_watch import EventWatch, watch
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.keyring import SigningKey, create_key, read_keyring, read_signing_key
from ctrainer.streams.readiness_probe import wait_until_ready
from ctrainer.streams.receipt_verification import ReceiptVerifier, verify_adapter
from ctrainer.streams.sample_producer import produce_file
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader

Result = TypeVar("Result")

TENANT = "retail-prod-eu"
WORKLOAD = "support_agent.order_tools"
KEY_ID = "demo"
_PATIENCE_SECONDS = 90.0


class DemoFailedError(ConstitutionalTrainerError):
    """The demo could not finish. The message says at which point and where the logs are."""


class DemoReport(Protocol):
    """What the demo tells the person who watches."""

    def say(self, text: str) -> None:
        """Announce the next thing that happens."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Show how far something long is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """One run of the demo. `settings` name real services; children write their logs below `folder`."""

    settings: Settings
    folder: Path
    samples: Path
    constitution: ConstitutionReference
    steps: int
    base_model: str
    max_tokens: int
    report: DemoReport

    async def run(self) -> DemoResult:
        """Run the main job from the first sample to the published adapter.

        Raises:
            DemoFailedError: the training session ended otherwise than completed.
            ChildFailedError: the worker or the trainer died again and again.
        """
        await self._administration().apply()
        key = demo_key(self.folder)
        async with self._children() as children:
            return await _unless_one_fails(children, self._main_job(key))

    async def _main_job(self, key: SigningKey) -> DemoResult:
        started = int(time.time() * 1_000)
        sent, outcomes = await self._judge()
        manifest = await self._seal(key, started)
        assignment, final = await self._train(key, manifest)
        published = await self._published(assignment.session_id)
        samples = count_outcomes(outcomes.values(), sent=sent, duplicates=manifest.counts.duplicates)
        self.report.say("verifying the adapter's receipt, from files and keys alone")
        signer = verified_signer(Path(published.path), keyring=self.folder / "keys" / "keyring.json")
        return DemoResult.build(samples=samples, final=final, adapter=published, signed_by=signer)

    async def _judge(self) -> tuple[int, Mapping[str, str]]:
        """Send the samples; return how many went in and the outcome of each by its source reference."""
        starts = await self._reader().end_offsets(FLYWHEEL_SAMPLES)
        async with watch(self._reader(), [COMPLIANCE_EVENTS, DEAD_LETTERS]) as outcomes:
            self.report.say(f"sending {self.samples.name} to {FLYWHEEL_SAMPLES}")
            sent = await produce_file(
                self.samples,
                bootstrap_servers=self._servers(),
                security=client_security(self.settings),
                sent=lambda _count: None,
            )
            self.report.say("judging every sample against the constitution")
            return sent, await self._collect(outcomes, starts, sent)

    async def _collect(self, outcomes: EventWatch, starts: Mapping[int, int], sent: int) -> Mapping[str, str]:
        found: dict[str, str] = {}
        while len(found) < sent:
            found |= await outcomes.first(
                lambda record: outcome_of(record, starts) or None,
                within_seconds=_PATIENCE_SECONDS,
                what=f"outcome after {len(found)} of {sent} samples",
            )
            self.report.progress("judged", len(found), sent)
        return found

    async def _seal(self, key: SigningKey, since: int) -> DatasetSealed:
        self.report.say(f"sealing the accepted samples of {TENANT}/{WORKLOAD} into a dataset")
        command = SealDataset(
            request_id=uuid4(),
            tenant=TENANT,
            workloads=(WORKLOAD,),
            constitution=self.constitution,
            accepted_since=since,
        )
        answer = await self._submitter(key).submit_and_wait(command)
        if not isinstance(answer, DatasetSealed):
            raise DemoFailedError(f"sealing: got {type(answer).__name__}, expected a sealed dataset")
        return answer

    async def _train(self, key: SigningKey, manifest: DatasetSealed) -> tuple[TrainingAssignment, SessionAdvanced]:
        self.report.say(f"training {self.steps} private steps on {manifest.counts.train} records")
        command = TrainAdapter(
            request_id=uuid4(),
            tenant=TENANT,
            dataset_id=manifest.dataset_id,
            constitution=self.constitution,
            base_model=self.base_model,
            privacy=PrivacySettings(population=f"demo-{uuid4()}"),
            optimizer=OptimizerSettings(steps=self.steps, max_tokens=self.max_tokens),
        )
        async with watch(self._reader(), [TRAINING_PROGRESS]) as progress:
            answer = await self._submitter(key).submit_and_wait(command)
            if not isinstance(answer, TrainingAssignment):
                raise DemoFailedError(f"training: got {type(answer).__name__}, expected an assignment")
            return answer, await self._follow(progress, answer.session_id)

    async def _follow(self, progress: EventWatch, session_id: str) -> SessionAdvanced:
        async for record in progress.records():
            advanced = session_advanced(record, session_id)
            if advanced is None:
                continue
            self.report.progress(f"session {advanced.state.value}", advanced.step, self.steps)
            if advanced.state is SessionState.COMPLETED:
                return advanced
            if advanced.state in FINAL_STATES:
                raise DemoFailedError(f"session {advanced.state.value}: {advanced.reason}: {advanced.message}")
        raise DemoFailedError("the watch on training.progress ended")

    async def _published(self, session_id: str) -> AdapterPublished:
        async for record in self._reader().read_topic(ADAPTERS_PUBLISHED):
            data = orjson.loads(record.value or b"{}")["data"]
            if data.get("session_id") == session_id:
                return AdapterPublished.model_validate(data)
        raise DemoFailedError(f"session {session_id} completed without an adapter on {ADAPTERS_PUBLISHED}")

    @asynccontextmanager
    async def _children(self) -> AsyncIterator[Sequence[ChildProcess]]:
        """Run a worker and a trainer as processes of their own; either is started again if it is killed."""
        settings = self._child_settings()
        async with AsyncExitStack() as stack:
            children = [self._child(name, settings) for name in ("worker", "trainer")]
            for child in children:
                await stack.enter_async_context(child)
            self.report.say(f"starting a worker and a trainer (logs in {self.folder / 'logs'})")
            await _unless_one_fails(children, wait_until_ready(settings.web_host, settings.web_port))
            yield children

    def _child(self, name: str, settings: Settings) -> ChildProcess:
        return ChildProcess(
            name=name,
            command=[sys.executable, "-m", "ctrainer.streams.cli", name],
            environment=settings.environment(),
            log=self.folder / "logs" / f"{name}.log",
        )

    def _child_settings(self) -> Settings:
        return self.settings.model_copy(
            update={
                "requesters": self.folder / "keys" / "keyring.json",
                "receipt_key": self.folder / "keys" / f"{KEY_ID}.pem",
                "web_port": free_port(),
            }
        )

    def _administration(self) -> TopicAdministration:
        return TopicAdministration(
            bootstrap_servers=self._servers(),
            partitions=self.settings.partitions,
            replication_factor=self.settings.replication_factor,
            security=client_security(self.settings),
        )

    def _submitter(self, key: SigningKey) -> CommandSubmitter:
        return CommandSubmitter(bootstrap_servers=self._servers(), key=key, security=client_security(self.settings))

    def _reader(self) -> TopicReader:
        return TopicReader(bootstrap_servers=self._servers(), security=client_security(self.settings))

    def _servers(self) -> str:
        if self.settings.kafka_bootstrap_servers is None:
            raise DemoFailedError("the demo needs the address of a Kafka broker")
        return self.settings.kafka_bootstrap_servers


async def _unless_one_fails(children: Sequence[ChildProcess], job: Coroutine[Any, Any, Result]) -> Result:
    """Return the job's result, or raise as soon as one of the children has failed for good."""
    task = asyncio.create_task(job)
    ends: set[asyncio.Future[Any]] = {task, *(child.failed for child in children)}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        for child in children:
            if child.failed.done():
                child.failed.result()
    return await task


def demo_key(folder: Path) -> SigningKey:
    """Return the demo's own signing key, made on first use."""
    path = folder / "keys" / f"{KEY_ID}.pem"
    if not path.exists():
        create_key(folder=path.parent, keyring=path.parent / "keyring.json", key_id=KEY_ID, tenants=(TENANT,))
    return read_signing_key(path)


def verified_signer(adapter: Path, *, keyring: Path) -> str:
    """Return who signed the receipt of an adapter, once it holds.

    Raises:
        ReceiptError: it does not, or the adapter's files are not those that it names.
    """
    read = ReceiptVerifier(requesters=read_keyring(keyring)).read(beside(adapter, "receipt"))
    verify_adapter(read, adapter)
    return read.signer or "nobody"


def outcome_of(record: Record, starts: Mapping[int, int]) -> dict[str, str]:
    """Return `{source reference: outcome}` of a decision or dead letter about a sample at or after `starts`."""
    if record.topic == DEAD_LETTERS:
        source = (record.key or b"").decode("utf-8", "replace")
        outcome = "dead"
    else:
        data = orjson.loads(record.value or b"{}")["data"]
        place = data["source"]
        source = f"{place['topic']}/{place['partition']}/{place['offset']}"
        outcome = data["verdict"]
    topic, partition, offset = source.rsplit("/", 2)
    ours = topic == FLYWHEEL_SAMPLES and int(offset) >= starts[int(partition)]
    return {source: outcome} if ours else {}


def session_advanced(record: Record, session_id: str) -> SessionAdvanced | None:
    """Return what `record` says about a session, or None where it is about another one."""
    data = orjson.loads(record.value or b"{}")["data"]
    if data.get("session_id") != session_id or "state" not in data:
        return None
    return SessionAdvanced.model_validate(data)
