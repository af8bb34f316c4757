import asyncio
import json
from dataclasses import dataclass, field
from threading import Event

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.compliance.loading import ConstitutionError, default_constitution
from ctrainer.agents.constitutions import ConstitutionDesk, Constitutions
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.schemas.constitution import Constitution, ConstitutionUpdated
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.envelope import Event as Envelope
from ctrainer.schemas.signature import Requester, sign
from tests.unit.agents.conftest import InMemoryTopics

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
    (output,) = await Constitutions(desk, InMemoryTopics())(batch)
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

    def read(self, record: Record, *, is_enacted: bool = False) -> Constitution:
        assert self.others_ran.wait(20), "the event loop stood still"
        return ConstitutionDesk.read(self, record, is_enacted=is_enacted)


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
    (output,) = await Constitutions(desk(), InMemoryTopics())(batch)
    assert len(output.value or b"") < 65_536
    assert Envelope[ConstitutionUpdated].from_json(output.value).data.faults[-1].startswith("and ")


async def test_nobody_puts_an_older_document_into_force_by_sending_its_signed_record_again(
    topics: InMemoryTopics,
) -> None:
    stage = Constitutions(desk(), topics)

    async def sent(record: Record) -> tuple[str, tuple[str, ...]]:
        kept = topics.append(OutputRecord(record.topic, record.key, record.value, 1, record.headers))
        (output,) = await stage(RecordBatch(topic=kept.topic, partition=0, epoch=1, records=(kept,)))
        topics.append(output)
        said = Envelope[ConstitutionUpdated].from_json(output.value).data
        return said.outcome, said.faults

    first, second = update(document(version="1")), update(document(version="2"))
    assert [(await sent(record))[0] for record in (first, second)] == ["enacted", "enacted"]
    for record in (first, second):
        outcome_of_copy, (fault,) = await sent(record)
        assert outcome_of_copy == "refused"
        assert fault.startswith("repeated: constitution.updates/0/")
    signed_anew = update(document(version="1", **{"x-enactment": "another"}))
    assert (await sent(signed_anew))[0] == "enacted"
    assert desk().read(signed_anew).digest == desk().read(first).digest


async def test_a_document_that_was_refused_may_be_sent_again(topics: InMemoryTopics) -> None:
    record = update(document(version="1"))
    for requesters, expected in (({}, "refused"), (DESK.requesters, "enacted")):
        known = ConstitutionDesk(
            desk=CommandDesk(requesters=requesters, in_force=CONSTITUTION.reference), governance_hash=GOVERNANCE_HASH
        )
        kept = topics.append(OutputRecord(record.topic, record.key, record.value, 1, record.headers))
        (output,) = await Constitutions(known, topics)(
            RecordBatch(topic=kept.topic, partition=0, epoch=1, records=(kept,))
        )
        topics.append(output)
        assert Envelope[ConstitutionUpdated].from_json(output.value).data.outcome == expected
