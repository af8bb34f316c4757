import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Event

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.constitutions import ConstitutionDesk
from ctrainer.agents.force import Force, Judges, appoint
from ctrainer.agents.records import Record
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.signature import Requester, sign
from ctrainer.streams.constitution_watch import ConstitutionWatch, latest_constitution
from ctrainer.streams.watched_keyring import KeyringUnreadableError

FIRST = default_constitution()
COMMANDS = CommandDesk(requesters={}, in_force=FIRST.reference, unsafe_accept_unsigned=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountingDesk(ConstitutionDesk):
    """Counts the documents it reads; each takes until the event loop has done something else meanwhile."""

    others_ran: Event = field(default_factory=Event)
    read_offsets: list[int] = field(default_factory=list)

    def read(self, record: Record) -> Constitution:
        assert self.others_ran.wait(20), "the event loop stood still"
        self.read_offsets.append(record.offset)
        return ConstitutionDesk.read(self, record)


@pytest.fixture
def desk() -> CountingDesk:
    return CountingDesk(desk=COMMANDS, governance_hash=GOVERNANCE_HASH)


def judges(constitution: Constitution) -> Judges:
    return appoint(Court(constitution), RegorusEngine(bundle_of(constitution)))


def update(offset: int, *, refused: bool = False) -> Record:
    whole = json.loads(FIRST.to_json()) | {"version": str(offset)} | ({"principles": []} if refused else {})
    return Record("constitution.updates", 0, offset, 1, b"default", json.dumps(whole).encode())


async def updates(*records: Record) -> AsyncIterator[Record]:
    for record in records:
        yield record


async def test_the_last_document_that_is_not_refused_comes_into_force_and_none_before_it_is_read(
    desk: CountingDesk,
) -> None:
    force = Force(judges(FIRST))
    watch = ConstitutionWatch(desk=desk, force=force, appoint=judges)
    for record in (update(0), update(1), update(2, refused=True)):
        watch.apply(record)
    enacting = asyncio.create_task(watch.enact())
    await asyncio.sleep(0)
    assert force.reference() == FIRST.reference()
    desk.others_ran.set()
    await enacting
    assert desk.read_offsets == [2, 1]
    assert force.reference() == ConstitutionDesk.read(desk, update(1)).reference()
    watch.apply(update(3, refused=True))
    await watch.enact()
    assert force.reference() == ConstitutionDesk.read(desk, update(1)).reference()


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


async def test_a_document_waits_while_it_cannot_be_told_who_signed_it() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    keyring = Returning(Requester(key_id="root", public_key=key.public_key(), tenants=frozenset({"*"})), failures=2)
    desk = CommandDesk(requesters=keyring, in_force=FIRST.reference)
    record = update(4)
    signed = record._replace(headers=(sign(key, key_id="root", key=record.key or b"", value=record.value or b""),))
    force = Force(judges(FIRST))
    watch = ConstitutionWatch(
        desk=ConstitutionDesk(desk=desk, governance_hash=GOVERNANCE_HASH),
        force=force,
        appoint=judges,
        patience_seconds=0,
    )
    watch.apply(signed)
    await watch.enact()
    assert keyring.failures == -1
    assert force.reference() != FIRST.reference()


async def test_a_worker_starts_with_the_last_document_or_with_its_own_where_none_counts(desk: CountingDesk) -> None:
    desk.others_ran.set()
    assert (await latest_constitution(updates(update(0), update(1)), desk, FIRST)).version == "1"
    assert await latest_constitution(updates(update(2, refused=True)), desk, FIRST) is FIRST
    assert await latest_constitution(updates(), desk, FIRST) is FIRST
