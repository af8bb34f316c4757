"""From frozen offset ranges to a manifest, and from a manifest back to the very same members."""

from collections.abc import AsyncIterator, Sequence

from ctrainer.agents.records import Record
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.datasets import DatasetCounts, DatasetSealed, OffsetRange, SelectionRules
from ctrainer.schemas.identity import canonical_bytes, content_digest
from ctrainer.schemas.samples import AcceptedSample
from ctrainer.trainer.dataset import Entry, Selection, select
from ctrainer.trainer.errors import DatasetChangedError


async def read_samples(
    records: AsyncIterator[Record], *, tenant: str, workloads: Sequence[str], since: int | None = None
) -> list[tuple[Record, AcceptedSample]]:
    """Return the samples of some workloads among `records`; older ones than `since` are left out.

    They come in the order of their places, in whatever order partitions were read: who is a member depends on it.
    """
    keys = {f"{tenant}/{workload}".encode() for workload in workloads}
    wanted = [record async for record in records if record.key in keys and (since is None or record.timestamp >= since)]
    wanted.sort(key=lambda record: (record.topic, record.partition, record.offset))
    return [(record, AcceptedSample.from_json(record.value)) for record in wanted]


def seal(
    samples: Sequence[tuple[Record, AcceptedSample]],
    *,
    tenant: str,
    workloads: Sequence[str],
    since: int | None = None,
    rules: SelectionRules,
    because: str,
) -> DatasetSealed:
    """Return the manifest over exactly these samples; its id is the digest of all the rest of it."""
    selection = select([entry_of(sample) for _, sample in samples], rules)
    manifest = DatasetSealed(
        dataset_id="",
        tenant=tenant,
        workloads=tuple(workloads),
        ranges=_ranges([record for record, _ in samples]),
        accepted_since=since,
        rules=rules,
        counts=_counts(selection),
        membership_digest=selection.membership_digest,
        constitutions=_constitutions([sample for _, sample in samples]),
        sealed_because=because,
    )
    dataset_id = content_digest(canonical_bytes(manifest.model_dump(mode="json", exclude={"dataset_id"})))
    return manifest.model_copy(update={"dataset_id": dataset_id})


def members(
    manifest: DatasetSealed, samples: Sequence[AcceptedSample]
) -> tuple[list[AcceptedSample], list[AcceptedSample]]:
    """Return the training and the held-out members among the samples read from a manifest's ranges.

    Raises:
        DatasetChangedError: the samples are not those that were sealed.
    """
    selection = select([entry_of(sample) for sample in samples], manifest.rules)
    if (_counts(selection), selection.membership_digest) != (manifest.counts, manifest.membership_digest):
        raise DatasetChangedError(
            f"dataset {manifest.dataset_id}: the ranges hold {selection.read} samples with membership "
            f"{selection.membership_digest}, sealed were {manifest.counts.read} with {manifest.membership_digest}"
        )
    return [samples[index] for index in selection.train], [samples[index] for index in selection.held_out]


def entry_of(sample: AcceptedSample) -> Entry:
    """Return what the selection may know of a sample."""
    tools = (call.function.name for message in sample.messages for call in message.tool_calls)
    return Entry(
        content_digest=sample.content_digest,
        conversation_id=sample.conversation_id,
        user_digest=sample.user_digest,
        first_tool=next(tools, None),
    )


def _counts(selection: Selection) -> DatasetCounts:
    return DatasetCounts(
        read=selection.read,
        duplicates=selection.duplicates,
        over_user_cap=selection.over_user_cap,
        train=len(selection.train),
        held_out=len(selection.held_out),
        users=selection.users,
        without_user=selection.without_user,
    )


def _ranges(records: Sequence[Record]) -> tuple[OffsetRange, ...]:
    """Return, for each partition, the range from its first to its last record."""
    spans: dict[tuple[str, int], tuple[int, int]] = {}
    for record in records:
        place = (record.topic, record.partition)
        first, _ = spans.get(place, (record.offset, 0))
        spans[place] = (first, record.offset + 1)
    return tuple(
        OffsetRange(topic=topic, partition=partition, start=start, end=end)
        for (topic, partition), (start, end) in sorted(spans.items())
    )


def _constitutions(samples: Sequence[AcceptedSample]) -> tuple[ConstitutionReference, ...]:
    found = {sample.constitution.digest: sample.constitution for sample in samples}
    return tuple(found[digest] for digest in sorted(found))
