import asyncio
import json
from dataclasses import dataclass, field
from threading import Event

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.loading import ConstitutionError, default_constitution
from ctrainer.agents.constitutions import ConstitutionDesk, Constitutions
from ctrainer.agents.records import Record, RecordBatch
from ctrainer.schemas.constitution import Constitution, ConstitutionUpdated, UpdateOutcome
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.envelope import Event as Envelope
from ctrainer.schemas.signature import Requester, sign

CONSTITUTION = default_constitution()
KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))
DESK = CommandDesk(
    requesters={
        "root": Requester(key_id="root", public_key=KEY.public_key(), tenants=frozenset({"*"})),
        "shop": Requester(key_id="shop", public_key=OTHER.public_key(), tenants=frozenset({"shop"})),
    },
    in_force=CONSTITUTION.reference,
)


def update(text: str, *, key: bytes = b"default", signer: str = "root") -> Record:
    value = text.encode()
    headers = (sign(KEY if signer == "root" else OTHER, key_id=signer, key=key, value=value),)
    return Record("constitution.updates", 0, 5, 1, key, value, headers)


def document(**changes: object) -> str:
    whole: dict[str, object] = json.loads(CONSTITUTION.to_json())
    return json.dumps(whole | changes)


async def outcome(record: Record, desk: ConstitutionDesk) -> ConstitutionUpdated:
    batch = RecordBatch(topic=record.topic, partition=0, epoch=1, records=(record,))
    (output,) = await Constitutions(desk)(batch)
    assert output.topic == "constitution.events"
    return Envelope[ConstitutionUpdated].from_json(output.value).data


def desk(pinned: str | None = None) -> ConstitutionDesk:
    return ConstitutionDesk(desk=DESK, governance_hash=GOVERNANCE_HASH, pinned_digest=pinned)


async def test_a_signed_document_is_enacted_under_its_digest() -> None:
    record = update(document(version="9"))
    said = await outcome(record, desk())
    read: Constitution = desk().read(record)
    assert (said.outcome, said.version, said.faults) == ("enacted", "9", ())
    assert said.constitution == read.reference()


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (update(document(), signer="shop"), "foreign-tenant"),
        (update(document())._replace(headers=()), "unsigned-command"),
        (update(document(governance_hash="0000")), "governance_hash"),
        (update(document(principles=[])), "principles: Tuple should have at least 1 item"),
        (update(document(), key=b"other"), "record key"),
        (update("{"), "not well-formed"),
        (update("")._replace(value=b"\xff", headers=()), "unsigned-command"),
    ],
)
async def test_a_document_that_may_not_come_into_force_is_refused_with_its_faults(record: Record, fault: str) -> None:
    said = await outcome(record, desk())
    assert (said.outcome, said.constitution) == ("refused", None)
    assert any(fault in told for told in said.faults)
    with pytest.raises(ConstitutionError):
        desk().read(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowDesk(ConstitutionDesk):
    """A desk over a document that takes long: until the event loop has done something else meanwhile."""

    others_ran: Event = field(default_factory=Event)

    def read(self, record: Record, known: UpdateOutcome | None = None) -> Constitution:
        assert self.others_ran.wait(20), "the event loop stood still"
        return ConstitutionDesk.read(self, record, known)


async def test_other_work_goes_on_while_a_large_document_is_read() -> None:
    slow = SlowDesk(desk=DESK, governance_hash=GOVERNANCE_HASH)
    said = asyncio.create_task(outcome(update(document(version="9")), slow))
    await asyncio.sleep(0)
    slow.others_ran.set()
    assert (await said).outcome == "enacted"


async def test_a_pinned_deployment_takes_no_other_document() -> None:
    assert (await outcome(update(document(version="9")), desk(CONSTITUTION.digest))).outcome == "refused"
    assert (await outcome(update(document()), desk(CONSTITUTION.digest))).outcome == "enacted"


async def test_the_event_about_a_document_with_many_faults_stays_small() -> None:
    faulty = {"id": "p" * 2_000, "severity": "purple", "statement": "s", "action": "ask"}
    record = update(document(principles=[faulty] * 400))
    batch = RecordBatch(topic=record.topic, partition=0, epoch=1, records=(record,))
    (output,) = await Constitutions(desk())(batch)
    assert len(output.value or b"") < 65_536
    assert Envelope[ConstitutionUpdated].from_json(output.value).data.faults[-1].startswith("and ")
