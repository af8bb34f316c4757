from collections.abc import Callable
from time import process_time
from uuid import UUID

import pytest

from ctrainer.agents.commands import Command, CommandDesk
from ctrainer.agents.records import Record
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.training import TrainAdapter

Submit = Callable[[Command], Record]

COMMAND = TrainAdapter(
    request_id=UUID(int=1),
    tenant="acme",
    dataset_id="sha256:d5",
    constitution=ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab"),
)


def reason(desk: CommandDesk, record: Record) -> str | None:
    refusal = desk.objection(record, desk.read(record))
    return refusal.reason if refusal else None


def test_a_signed_command_of_the_active_constitution_meets_no_objection(desk: CommandDesk, submit: Submit) -> None:
    assert reason(desk, submit(COMMAND)) is None


def test_a_command_under_another_tenants_key_is_refused(desk: CommandDesk, submit: Submit) -> None:
    assert reason(desk, submit(COMMAND)._replace(key=b"umbrella")) == "key-is-not-tenant"
    assert reason(desk, submit(COMMAND)._replace(key=None)) == "key-is-not-tenant"


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (b"", "unknown-signer"),
        (b"mallory:AAAA", "unknown-signer"),
        (b"alice:AAAA", "bad-signature"),
        (b"alice:not base64", "bad-signature"),
        (b"alice:\xff\xfe", "bad-signature"),
    ],
)
def test_a_wrong_signature_is_refused_even_where_unsigned_commands_are_accepted(
    desk: CommandDesk, submit: Submit, signature: bytes, expected: str
) -> None:
    lenient = CommandDesk(requesters=desk.requesters, in_force=desk.in_force, unsafe_accept_unsigned=True)
    record = submit(COMMAND)._replace(headers=(("ctrainer-signature", signature),))
    assert reason(desk, record) == reason(lenient, record) == expected


def test_a_changed_command_no_longer_fits_its_signature(desk: CommandDesk, submit: Submit) -> None:
    record = submit(COMMAND)
    changed = (record.value or b"").replace(b'"rank":8', b'"rank":9')
    assert reason(desk, record._replace(value=changed)) == "bad-signature"


def test_a_command_of_megabytes_of_faults_is_none(desk: CommandDesk, submit: Submit) -> None:
    value = b'{"kind": "TrainAdapter", %b}' % b",".join(b'"k%d":0' % number for number in range(1_000_000))
    started = process_time()
    with pytest.raises(ContractError, match="at most") as refused:
        desk.read(submit(COMMAND)._replace(value=value))
    assert process_time() - started < 1.0
    assert refused.value.reason == "record-too-large"


def test_of_many_faults_the_first_ones_are_told(desk: CommandDesk, submit: Submit) -> None:
    value = b'{"kind": "TrainAdapter", %b}' % b",".join(b'"k%d":0' % number for number in range(10_000))
    with pytest.raises(ContractError, match=r"and 9984 more$") as refused:
        desk.read(submit(COMMAND)._replace(value=value))
    assert len(str(refused.value)) < 2_000
