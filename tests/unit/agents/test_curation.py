import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import pytest

from ctrainer.agents.commands import Command, CommandDesk
from ctrainer.agents.curation import AutomaticSealing, CommandedSealing
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.sealing import members, read_samples
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.datasets import DatasetSealed
from ctrainer.schemas.samples import AcceptedSample
from ctrainer.schemas.training import SealDataset, TrainAdapter
from ctrainer.trainer.errors import DatasetChangedError

Submit = Callable[[Command], Record]
Accept = Callable[[str, str, int], Record]
Deliver = Callable[[Sequence[OutputRecord]], list[Record]]

CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")
NOON = 1_700_000_000_000


def seal(*workloads: str, **changes: Any) -> SealDataset:
    command = SealDataset(
        request_id=UUID(int=1), tenant="acme", workloads=workloads or ("chat",), constitution=CONSTITUTION
    )
    return command.model_copy(update=changes)


def batch(*records: Record) -> RecordBatch:
    return RecordBatch(topic=records[0].topic, partition=records[0].partition, epoch=1, records=records)


def manifest_of(output: OutputRecord | Record) -> DatasetSealed:
    return DatasetSealed.model_validate(json.loads(output.value or b"")["data"])


def spans(manifest: DatasetSealed) -> list[tuple[int, int, int]]:
    return [(span.partition, span.start, span.end) for span in manifest.ranges]


async def members_again(topics: Topics, manifest: DatasetSealed) -> tuple[list[AcceptedSample], list[AcceptedSample]]:
    read = await read_samples(
        topics.read_ranges(manifest.ranges),
        tenant=manifest.tenant,
        workloads=manifest.workloads,
        since=manifest.accepted_since,
    )
    return members(manifest, [sample for _, sample in read])


@pytest.fixture
def curation(desk: CommandDesk, topics: Topics) -> CommandedSealing:
    return CommandedSealing(desk=desk, topics=topics)


@pytest.fixture
def automatic(topics: Topics) -> AutomaticSealing:
    return AutomaticSealing(topics=topics, in_force=lambda: CONSTITUTION, count=4, age_ms=1_000)


async def test_a_command_seals_the_workloads_it_names_and_nothing_else(
    curation: CommandedSealing, topics: Topics, submit: Submit, accept: Accept
) -> None:
    for number in range(20):
        accept("acme/chat", f"question {number}", 1)
        accept("acme/other", f"question {number}", 1)
        accept("umbrella/chat", f"question {number}", 1)
    (event,) = await curation(batch(submit(seal())))
    manifest = manifest_of(event)
    assert (event.topic, event.key) == ("datasets.sealed", f"acme/{manifest.dataset_id}".encode())
    assert (manifest.counts.read, manifest.counts.train + manifest.counts.held_out) == (20, 20)
    train, held_out = await members_again(topics, manifest)
    assert {(sample.tenant, sample.workload_id) for sample in (*train, *held_out)} == {("acme", "chat")}


async def test_the_members_are_found_again_in_whatever_order_partitions_are_read(
    curation: CommandedSealing, topics: Topics, submit: Submit, accept: Accept
) -> None:
    for number in range(12):
        accept("acme/chat", f"question {number % 9}", 0)
        accept("acme/mail", f"question {11 - number}", 2)
    (event,) = await curation(batch(submit(seal("chat", "mail"))))
    manifest = manifest_of(event)
    assert spans(manifest) == [(0, 0, 12), (2, 0, 12)]
    assert manifest.counts.duplicates == 12
    train, held_out = await members_again(topics, manifest)
    assert (len(train), len(held_out)) == (manifest.counts.train, manifest.counts.held_out)


async def test_records_that_come_later_change_nothing_of_a_sealed_dataset(
    curation: CommandedSealing, topics: Topics, submit: Submit, accept: Accept
) -> None:
    for number in range(9):
        accept("acme/chat", f"question {number}", 0)
    (event,) = await curation(batch(submit(seal())))
    before = await members_again(topics, manifest_of(event))
    accept("acme/chat", "later", 0)
    assert await members_again(topics, manifest_of(event)) == before


async def test_members_that_are_gone_or_others_are_an_error(
    curation: CommandedSealing, submit: Submit, accept: Accept
) -> None:
    records = [accept("acme/chat", f"question {number}", 0) for number in range(9)]
    (event,) = await curation(batch(submit(seal())))
    samples = [AcceptedSample.from_json(record.value) for record in records]
    other = samples[3].model_copy(update={"content_digest": "sha256:other"})
    with pytest.raises(DatasetChangedError):
        members(manifest_of(event), samples[1:])
    with pytest.raises(DatasetChangedError):
        members(manifest_of(event), [*samples[:3], other, *samples[4:]])


async def test_samples_that_are_too_old_are_left_out(
    curation: CommandedSealing, topics: Topics, submit: Submit, accept: Accept
) -> None:
    for number in range(9):
        accept("acme/chat", f"question {number}", 0)
    (event,) = await curation(batch(submit(seal(accepted_since=NOON + 4))))
    manifest = manifest_of(event)
    assert (spans(manifest), manifest.counts.read) == ([(0, 4, 9)], 5)
    assert sum(map(len, await members_again(topics, manifest))) == 5


async def test_a_seal_without_samples_is_refused(curation: CommandedSealing, submit: Submit, accept: Accept) -> None:
    accept("umbrella/chat", "question", 0)
    (refused,) = await curation(batch(submit(seal())))
    assert refused.topic == "training.progress"
    assert json.loads(refused.value or b"")["data"]["reason"] == "no-samples"


async def test_a_seal_of_a_tenant_that_the_signer_may_not_act_for_is_refused(
    curation: CommandedSealing, submit: Submit, accept: Accept
) -> None:
    accept("initech/chat", "question", 0)
    (refused,) = await curation(batch(submit(seal(tenant="initech"))))
    assert json.loads(refused.value or b"")["data"]["reason"] == "foreign-tenant"


async def test_what_is_not_curations_is_left_to_the_training_desk(curation: CommandedSealing, submit: Submit) -> None:
    other = TrainAdapter(request_id=UUID(int=1), tenant="acme", dataset_id="x", constitution=CONSTITUTION)
    unreadable = submit(seal())._replace(value=b"{")
    assert await curation(batch(submit(other), unreadable)) == []


async def test_the_same_ranges_under_the_same_rules_are_the_same_dataset(
    curation: CommandedSealing, submit: Submit, accept: Accept
) -> None:
    accept("acme/chat", "question", 0)
    record = submit(seal())
    assert await curation(batch(record)) == await curation(batch(record))


async def test_an_unsigned_seal_says_so(topics: Topics, submit: Submit, accept: Accept) -> None:
    lenient = CommandDesk(requesters={}, in_force=lambda: CONSTITUTION, unsafe_accept_unsigned=True)
    accept("acme/chat", "question", 0)
    unsigned = submit(seal())._replace(headers=())
    (event,) = await CommandedSealing(desk=lenient, topics=topics)(batch(unsigned))
    assert manifest_of(event).sealed_because.startswith("unsafe unsigned command")


async def test_a_range_closes_at_its_count_and_the_next_one_starts_behind_it(
    automatic: AutomaticSealing, accept: Accept
) -> None:
    await automatic.restore(0, 0)
    records = [accept("acme/chat", f"question {number}", 0) for number in range(9)]
    outputs = [*await automatic(batch(*records[:3])), *await automatic(batch(*records[3:]))]
    assert [spans(manifest_of(output)) for output in outputs] == [[(0, 0, 4)], [(0, 4, 8)]]
    assert {manifest_of(output).sealed_because for output in outputs} == {"count"}


async def test_workloads_of_one_partition_have_ranges_of_their_own(automatic: AutomaticSealing, accept: Accept) -> None:
    await automatic.restore(0, 0)
    keys = ("acme/chat", "acme/mail")
    records = [accept(key, f"question {number}", 0) for number in range(5) for key in keys]
    outputs = await automatic(batch(*records))
    assert [spans(manifest_of(output)) for output in outputs] == [[(0, 0, 7)], [(0, 1, 8)]]
    assert [manifest_of(output).counts.read for output in outputs] == [4, 4]


async def test_a_range_closes_when_its_first_sample_is_old_enough(automatic: AutomaticSealing, accept: Accept) -> None:
    await automatic.restore(0, 0)
    young, old = accept("acme/chat", "question", 0), accept("acme/chat", "another", 0)
    assert await automatic(batch(young)) == []
    (event,) = await automatic(batch(old._replace(timestamp=young.timestamp + 1_000)))
    assert (manifest_of(event).sealed_because, manifest_of(event).counts.read) == ("age", 2)


async def test_a_batch_that_was_not_committed_is_not_counted_twice(automatic: AutomaticSealing, accept: Accept) -> None:
    await automatic.restore(0, 0)
    records = [accept("acme/chat", f"question {number}", 0) for number in range(4)]
    assert await automatic(batch(*records[:3])) == []
    assert await automatic(batch(*records[:2])) == []
    (event,) = await automatic(batch(*records[2:]))
    assert spans(manifest_of(event)) == [(0, 0, 4)]


@pytest.mark.parametrize("committed", range(11))
async def test_a_new_owner_seals_what_the_former_one_would_have_sealed(
    topics: Topics, deliver: Deliver, accept: Accept, committed: int
) -> None:
    records = [accept("acme/chat", f"question {number}", 0) for number in range(11)]
    sealed: list[Record] = []
    for part in (records[:committed], records[committed:]):
        owner = AutomaticSealing(topics=topics, in_force=lambda: CONSTITUTION, count=4, age_ms=1_000)
        await owner.restore(0, part[0].offset if part else 0)
        sealed += deliver(await owner(batch(*part))) if part else []
    assert [spans(manifest_of(record)) for record in sealed] == [[(0, 0, 4)], [(0, 4, 8)]]
