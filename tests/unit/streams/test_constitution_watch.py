import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from threading import Event

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.constitutions import ConstitutionDesk, Constitutions
from ctrainer.agents.force import Force, Judges, appoint
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.signature import Requester, sign
from ctrainer.streams.active_constitution import WrongConstitutionError
from ctrainer.streams.constitution_watch import ConstitutionWatch, latest_constitution
from ctrainer.streams.watched_keyring import KeyringUnreadableError
from tests.unit.agents.conftest import InMemoryTopics

FIRST = default_constitution()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ROOT = Requester(key_id="root", public_key=KEY.public_key(), tenants=frozenset({"*"}))
COMMANDS = CommandDesk(requesters={}, in_force=FIRST.reference, unsafe_accept_unsigned=True)
UNSIGNED = ConstitutionDesk(desk=COMMANDS, governance_hash=GOVERNANCE_HASH)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingDesk(ConstitutionDesk):
    """Counts the documents it reads; each takes until the event loop has done something else meanwhile."""

    others_ran: Event = field(default_factory=Event)
    read_offsets: list[int] = field(default_factory=list)

    def read(self, record: Record, *, is_enacted: bool = False) -> Constitution:
        assert self.others_ran.wait(20), "the event loop stood still"
        self.read_offsets.append(record.offset)
        return ConstitutionDesk.read(self, record, is_enacted=is_enacted)


@pytest.fixture
def topics() -> InMemoryTopics:
    return InMemoryTopics()


@pytest.fixture
def desk() -> CountingDesk:
    return CountingDesk(desk=COMMANDS, governance_hash=GOVERNANCE_HASH)


def judges(constitution: Constitution) -> Judges:
    return appoint(Court(constitution), RegorusEngine(bundle_of(constitution)))


def put(topics: InMemoryTopics, version: str, *, refused: bool = False) -> Record:
    whole = json.loads(FIRST.to_json()) | {"version": version} | ({"principles": []} if refused else {})
    return topics.append(OutputRecord("constitution.updates", b"default", json.dumps(whole).encode(), 1))


def put_signed(topics: InMemoryTopics, version: str) -> Record:
    record = put(topics, version)
    header = sign(KEY, key_id="root", key=record.key or b"", value=record.value or b"")
    topics.records["constitution.updates", 0][-1] = record._replace(headers=(header,))
    return topics.records["constitution.updates", 0][-1]


def signed_desk(keyring: Mapping[str, Requester]) -> ConstitutionDesk:
    return ConstitutionDesk(
        desk=CommandDesk(requesters=keyring, in_force=FIRST.reference), governance_hash=GOVERNANCE_HASH
    )


async def decide(topics: InMemoryTopics, record: Record, desk: ConstitutionDesk) -> list[Record]:
    batch = RecordBatch(topic=record.topic, partition=0, epoch=1, records=(record,))
    return [topics.append(output) for output in await Constitutions(desk, topics)(batch)]


async def test_the_last_document_that_was_enacted_comes_into_force_and_none_before_it_is_read(
    desk: CountingDesk, topics: InMemoryTopics
) -> None:
    force = Force(judges(FIRST))
    watch = ConstitutionWatch(topics=topics, desk=desk, force=force, appoint=judges)
    documents = [put(topics, "1"), put(topics, "2"), put(topics, "3", refused=True)]
    for record in documents:
        for event in await decide(topics, record, UNSIGNED):
            watch.apply(event)
    enacting = asyncio.create_task(watch.enact())
    await asyncio.sleep(0)
    assert force.reference() == FIRST.reference()
    desk.others_ran.set()
    await enacting
    assert desk.read_offsets == [1]
    assert force.reference() == desk.read(documents[1]).reference()
    for event in await decide(topics, put(topics, "4", refused=True), UNSIGNED):
        watch.apply(event)
    await watch.enact()
    assert force.reference() == desk.read(documents[1]).reference()


async def test_no_worker_goes_by_a_document_that_the_stage_has_not_enacted(topics: InMemoryTopics) -> None:
    force = Force(judges(FIRST))
    stale, now = signed_desk({"root": ROOT}), signed_desk({})
    watch = ConstitutionWatch(topics=topics, desk=stale, force=force, appoint=judges)
    record = put_signed(topics, "signed by a key that was revoked")
    watch.apply(record)
    await watch.enact()
    assert await latest_constitution(topics, stale, FIRST) is FIRST
    for event in await decide(topics, record, now):
        watch.apply(event)
    await watch.enact()
    assert force.reference() == FIRST.reference()
    assert await latest_constitution(topics, stale, FIRST) is FIRST


async def test_the_stage_waits_while_it_cannot_be_told_who_signed_a_document(topics: InMemoryTopics) -> None:
    class Unreadable(dict[str, Requester]):
        def get(self, *_: object) -> Requester:
            raise KeyringUnreadableError("keyring")

    with pytest.raises(KeyringUnreadableError):
        await decide(topics, put_signed(topics, "1"), signed_desk(Unreadable()))


class Returning(InMemoryTopics):
    """Topics that cannot be read at first."""

    failures = 2

    async def read_topic(self, topic: str, partition: int | None = None) -> AsyncIterator[Record]:
        self.failures -= 1
        if self.failures >= 0:
            raise ConnectionError(topic)
        async for record in super().read_topic(topic, partition):
            yield record


async def test_a_document_comes_into_force_once_it_can_be_read() -> None:
    known, topics, force = InMemoryTopics(), Returning(), Force(judges(FIRST))
    watch = ConstitutionWatch(topics=topics, desk=UNSIGNED, force=force, appoint=judges, patience_seconds=0)
    for event in await decide(known, put(known, "1"), UNSIGNED):
        watch.apply(event)
    topics.records = known.records
    await watch.enact()
    assert topics.failures < 0
    assert force.reference() != FIRST.reference()


async def test_a_partition_that_is_taken_over_returns_to_no_older_document(topics: InMemoryTopics) -> None:
    """The worker before may have gone by a document of which this one was not told yet."""
    force = Force(judges(FIRST))
    watch = ConstitutionWatch(topics=topics, desk=UNSIGNED, force=force, appoint=judges)
    await watch.taken_over(0, 0)
    assert force.reference() == FIRST.reference()
    await decide(topics, put(topics, "2"), UNSIGNED)
    await decide(topics, put(topics, "3", refused=True), UNSIGNED)
    await watch.taken_over(0, 0)
    assert force.judges().court.reference == (await latest_constitution(topics, UNSIGNED, FIRST)).reference()
    assert force.reference() != FIRST.reference()


async def test_many_partitions_that_are_taken_over_together_read_the_topic_twice_at_most() -> None:
    class Counted(InMemoryTopics):
        reads = 0

        async def read_topic(self, topic: str, partition: int | None = None) -> AsyncIterator[Record]:
            self.reads += 1
            await asyncio.sleep(0)
            async for record in super().read_topic(topic, partition):
                yield record

    counted = Counted()
    watch = ConstitutionWatch(topics=counted, desk=UNSIGNED, force=Force(judges(FIRST)), appoint=judges)
    await asyncio.gather(*(watch.taken_over(partition, 0) for partition in range(24)))
    assert counted.reads <= 2
    before = counted.reads
    await watch.taken_over(0, 0)
    assert counted.reads == before + 1


async def test_a_pinned_worker_asks_nobody_when_it_takes_over() -> None:
    pinned = ConstitutionDesk(desk=COMMANDS, governance_hash=GOVERNANCE_HASH, pinned_digest=FIRST.digest)
    topics = Returning()
    await ConstitutionWatch(topics=topics, desk=pinned, force=Force(judges(FIRST)), appoint=judges).taken_over(0, 0)
    assert topics.failures == Returning.failures


async def test_a_worker_starts_with_the_last_document_or_with_its_own_where_none_counts(
    desk: CountingDesk, topics: InMemoryTopics
) -> None:
    desk.others_ran.set()
    assert await latest_constitution(topics, desk, FIRST) is FIRST
    for version, is_refused in (("1", True), ("2", False), ("3", False)):
        await decide(topics, put(topics, version, refused=is_refused), UNSIGNED)
        assert (await latest_constitution(topics, desk, FIRST) is FIRST) is is_refused
    assert (await latest_constitution(topics, desk, FIRST)).version == "3"


async def test_what_became_of_a_document_stays_when_the_keyring_changes(topics: InMemoryTopics) -> None:
    with_root, without = signed_desk({"root": ROOT}), signed_desk({})
    await decide(topics, put_signed(topics, "enacted"), with_root)
    await decide(topics, put_signed(topics, "refused"), without)
    for desk in (with_root, without):
        assert (await latest_constitution(topics, desk, FIRST)).version == "enacted"


async def test_no_worker_judges_by_an_older_document_because_it_cannot_carry_out_the_last_one(
    topics: InMemoryTopics,
) -> None:
    await decide(topics, put(topics, "1"), UNSIGNED)
    other = ConstitutionDesk(desk=COMMANDS, governance_hash="0000")
    whole = json.loads(FIRST.to_json()) | {"version": "2", "governance_hash": "0000"}
    record = topics.append(OutputRecord("constitution.updates", b"default", json.dumps(whole).encode(), 1))
    (event,) = await decide(topics, record, other)
    with pytest.raises(WrongConstitutionError, match="/0/1 was enacted"):
        await latest_constitution(topics, UNSIGNED, FIRST)
    force = Force(judges(FIRST))
    watch = ConstitutionWatch(topics=topics, desk=UNSIGNED, force=force, appoint=judges)
    watch.apply(event)
    with pytest.raises(WrongConstitutionError):
        await watch.enact()
    pinned = ConstitutionDesk(desk=COMMANDS, governance_hash=GOVERNANCE_HASH, pinned_digest=FIRST.digest)
    assert await latest_constitution(topics, pinned, FIRST) is FIRST
