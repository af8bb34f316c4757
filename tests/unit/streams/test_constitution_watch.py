import asyncio
import json
from collections.abc import Iterator, Mapping
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
from ctrainer.schemas.constitution import Constitution, UpdateOutcome
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.signature import Requester, sign
from ctrainer.streams.constitution_watch import ConstitutionWatch, latest_constitution
from ctrainer.streams.watched_keyring import KeyringUnreadableError
from tests.unit.agents.conftest import InMemoryTopics

FIRST = default_constitution()
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ROOT = Requester(key_id="root", public_key=KEY.public_key(), tenants=frozenset({"*"}))
COMMANDS = CommandDesk(requesters={}, in_force=FIRST.reference, unsafe_accept_unsigned=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingDesk(ConstitutionDesk):
    """Counts the documents it reads; each takes until the event loop has done something else meanwhile."""

    others_ran: Event = field(default_factory=Event)
    read_offsets: list[int] = field(default_factory=list)

    def read(self, record: Record, known: UpdateOutcome | None = None) -> Constitution:
        assert self.others_ran.wait(20), "the event loop stood still"
        self.read_offsets.append(record.offset)
        return ConstitutionDesk.read(self, record, known)


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


async def decide(topics: InMemoryTopics, record: Record, desk: ConstitutionDesk) -> None:
    batch = RecordBatch(topic=record.topic, partition=0, epoch=1, records=(record,))
    for output in await Constitutions(desk)(batch):
        topics.append(output)


async def test_the_last_document_that_is_not_refused_comes_into_force_and_none_before_it_is_read(
    desk: CountingDesk, topics: InMemoryTopics
) -> None:
    force = Force(judges(FIRST))
    watch = ConstitutionWatch(topics=topics, desk=desk, force=force, appoint=judges)
    documents = [put(topics, "1"), put(topics, "2"), put(topics, "3", refused=True)]
    for record in documents:
        watch.apply(record)
    enacting = asyncio.create_task(watch.enact())
    await asyncio.sleep(0)
    assert force.reference() == FIRST.reference()
    desk.others_ran.set()
    await enacting
    assert desk.read_offsets == [2, 1]
    assert force.reference() == desk.read(documents[1]).reference()
    watch.apply(put(topics, "4", refused=True))
    await watch.enact()
    assert force.reference() == desk.read(documents[1]).reference()


class Returning(Mapping[str, Requester]):
    """A keyring that cannot be read at first."""

    def __init__(self, requester: Requester, *, failures: int) -> None:
        self.requester, self.failures = requester, failures

    def __getitem__(self, key_id: str) -> Requester:
        self.failures -= 1
        if self.failures >= 0:
            raise KeyringUnreadableError(key_id)
        return self.requester

    def __iter__(self) -> Iterator[str]:
        return iter([self.requester.key_id])

    def __len__(self) -> int:
        return 1


async def test_a_document_waits_while_it_cannot_be_told_who_signed_it(topics: InMemoryTopics) -> None:
    keyring, force = Returning(ROOT, failures=2), Force(judges(FIRST))
    watch = ConstitutionWatch(topics=topics, desk=signed_desk(keyring), force=force, appoint=judges, patience_seconds=0)
    watch.apply(put_signed(topics, "1"))
    await watch.enact()
    assert keyring.failures == -1
    assert force.reference() != FIRST.reference()


async def test_a_worker_starts_with_the_last_document_or_with_its_own_where_none_counts(
    desk: CountingDesk, topics: InMemoryTopics
) -> None:
    desk.others_ran.set()
    assert await latest_constitution(topics, desk, FIRST) is FIRST
    put(topics, "1", refused=True)
    assert await latest_constitution(topics, desk, FIRST) is FIRST
    put(topics, "2")
    put(topics, "3")
    assert (await latest_constitution(topics, desk, FIRST)).version == "3"


async def test_what_became_of_a_document_stays_when_the_keyring_changes(topics: InMemoryTopics) -> None:
    with_root, without = signed_desk({"root": ROOT}), signed_desk({})
    await decide(topics, put_signed(topics, "enacted"), with_root)
    await decide(topics, put_signed(topics, "refused"), without)
    for desk in (with_root, without):
        assert (await latest_constitution(topics, desk, FIRST)).version == "enacted"
    put_signed(topics, "undecided yet")
    assert (await latest_constitution(topics, with_root, FIRST)).version == "undecided yet"
    assert (await latest_constitution(topics, without, FIRST)).version == "enacted"
