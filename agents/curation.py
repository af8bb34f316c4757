"""Curation: seals what was accepted into datasets, when a command says so, or a count or an age does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctrainer.agents.commands import CommandDesk, Refusal
from ctrainer.agents.events import event_record, read_event
from ctrainer.agents.force import InForce
from ctrainer.agents.provisional import Provisional
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.sealing import read_samples, seal
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import DatasetSealed, OffsetRange, SelectionRules
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.topics import DATASETS_SEALED, SAMPLES_ACCEPTED
from ctrainer.schemas.training import SealDataset

STAGE = "curation"
DAY_MS = 24 * 60 * 60 * 1000


class CommandedSealing:
    """The handler of `training.requests` for SealDataset; everything else there is the training desk's."""

    def __init__(self, *, desk: CommandDesk, topics: Topics) -> None:
        self._desk = desk
        self._topics = topics

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Seal a dataset for each valid command."""
        return [output for record in batch.records for output in await self._answer(record)]

    async def _answer(self, record: Record) -> Sequence[OutputRecord]:
        try:
            command = self._desk.read(record)
        except ContractError:
            # The training desk reads the same record and gives it its dead letter.
            return []
        if not isinstance(command, SealDataset):
            return []
        refusal = self._desk.objection(record, command)
        if refusal is not None:
            return [self._desk.refused(record, command, refusal)]
        return await self._seal(record, command)

    async def _seal(self, record: Record, command: SealDataset) -> Sequence[OutputRecord]:
        """Freeze the topic's present ends and seal what lies before them."""
        samples = await read_samples(
            self._topics.read_topic(SAMPLES_ACCEPTED),
            tenant=command.tenant,
            workloads=command.workloads,
            since=command.accepted_since,
        )
        if not samples:
            message = "nothing was accepted for these workloads"
            refusal = Refusal(reason="no-samples", message=message, acceptable="workloads with accepted samples")
            return [self._desk.refused(record, command, refusal)]
        manifest = seal(
            samples,
            tenant=command.tenant,
            workloads=command.workloads,
            since=command.accepted_since,
            rules=command.rules,
            because=f"{'unsafe unsigned ' * self._desk.is_unsigned(record)}command {command.request_id}",
        )
        return [sealed_event(manifest, record, self._desk.in_force())]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRange:
    """What a workload has gathered since its last seal: from which offset on, how many, and since when."""

    start: int
    count: int
    since: int

    def grown(self) -> "OpenRange":
        """Return the range with one sample more."""
        return replace(self, count=self.count + 1)


class AutomaticSealing:
    """The handler of `samples.accepted`: closes a workload's open range when it holds enough or is old enough.

    All samples of a workload lie in one partition, so its range has one owner. Age is counted in the samples' own
    timestamps: it is noticed when the next sample comes.
    """

    def __init__(
        self,
        *,
        topics: Topics,
        in_force: InForce,
        count: int = 10_000,
        age_ms: int = 30 * DAY_MS,
        rules: SelectionRules | None = None,
    ) -> None:
        self._topics = topics
        self._in_force = in_force
        self._count = count
        self._age_ms = age_ms
        self._rules = rules or SelectionRules()
        self._partitions: dict[int, Provisional[dict[bytes, OpenRange]]] = {}

    async def restore(self, partition: int, committed_offset: int) -> None:
        """Find the open ranges again: what was committed since each workload's last automatic seal."""
        sealed = await self._sealed_ends(partition)
        open_ranges: dict[bytes, OpenRange] = {}
        async for record in self._topics.read_topic(SAMPLES_ACCEPTED, partition):
            key = record.key or b""
            if sealed.get(key, 0) <= record.offset < committed_offset:
                open_ranges[key] = _with(open_ranges.get(key), record)
        self._partitions[partition] = Provisional(open_ranges)

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Take in the samples; emit a manifest for each range that closes."""
        state = self._partitions[batch.partition]
        open_ranges = dict(state.before(batch.records[0].offset))
        outputs = []
        for record in batch.records:
            key = record.key or b""
            grown = _with(open_ranges.get(key), record)
            open_ranges[key] = grown
            if grown.count >= self._count or record.timestamp - grown.since >= self._age_ms:
                outputs.append(await self._close(key, grown, record))
                del open_ranges[key]
        state.propose(open_ranges, next_offset=batch.records[-1].offset + 1)
        return outputs

    async def _close(self, key: bytes, closed: OpenRange, last: Record) -> OutputRecord:
        tenant, _, workload = key.decode().partition("/")
        span = OffsetRange(topic=last.topic, partition=last.partition, start=closed.start, end=last.offset + 1)
        samples = await read_samples(self._topics.read_ranges([span]), tenant=tenant, workloads=[workload])
        because = "count" if closed.count >= self._count else "age"
        manifest = seal(samples, tenant=tenant, workloads=[workload], rules=self._rules, because=because)
        return sealed_event(manifest, last, self._in_force())

    async def _sealed_ends(self, partition: int) -> dict[bytes, int]:
        ends: dict[bytes, int] = {}
        async for record in self._topics.read_topic(DATASETS_SEALED):
            if record.value is None:
                continue
            manifest = read_event(record.value, DatasetSealed)
            if manifest.sealed_because not in {"count", "age"}:
                continue
            for span in manifest.ranges:
                if span.partition == partition:
                    key = f"{manifest.tenant}/{manifest.workloads[0]}".encode()
                    ends[key] = max(ends.get(key, 0), span.end)
        return ends


def sealed_event(manifest: DatasetSealed, cause: Record, constitution: ConstitutionReference) -> OutputRecord:
    """Return the record that publishes a manifest."""
    return event_record(
        topic=DATASETS_SEALED,
        key=f"{manifest.tenant}/{manifest.dataset_id}",
        data=manifest,
        cause=cause,
        constitution=constitution,
    )


def _with(known: OpenRange | None, record: Record) -> OpenRange:
    if known is None:
        return OpenRange(start=record.offset, count=1, since=record.timestamp)
    return known.grown()
