import base64
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.identity import content_digest
from ctrainer.schemas.membership import Member, Membership, Standing
from ctrainer.schemas.privacy import (
    Accountant,
    Adjacency,
    Mechanism,
    NoGuarantee,
    NoMechanism,
    PrivacyGuarantee,
    PrivacyUnit,
)
from ctrainer.schemas.receipt import AdapterReceipt, SignedStatement, authenticated_bytes, state_receipt
from ctrainer.schemas.release import ReleaseCheck, ReleaseVerdict
from ctrainer.streams.cli import app
from ctrainer.streams.keyring import SigningKey, create_key, read_keyring, read_signing_key
from ctrainer.streams.receipt_verification import ReceiptError, ReceiptVerifier, standing_of, verify_adapter
from ctrainer.trainer.adapter import file_digests, folder_digest
from ctrainer.trainer.dataset import merkle_root

TRAINED, HELD_OUT = content_digest(b"trained"), content_digest(b"held out")
MEMBERS = Membership(
    dataset_id="sha256:dd",
    train=(Member(sample_id="one", content_digest=TRAINED),),
    held_out=(Member(sample_id="two", content_digest=HELD_OUT),),
)


@dataclass(frozen=True)
class Case:
    """An adapter with its receipt on the disk, as a session leaves them."""

    folder: Path
    receipt: Path
    members: Path
    keyring: Path
    key: SigningKey

    def verifier(self, *, unsafe_unsigned: bool = False) -> ReceiptVerifier:
        return ReceiptVerifier(requesters=read_keyring(self.keyring), unsafe_unsigned=unsafe_unsigned)

    def statement(self) -> SignedStatement:
        return SignedStatement.from_json(self.receipt.read_bytes())

    def payload(self) -> bytes:
        return base64.b64decode(self.statement().payload)


def receipt_of(folder: Path, *, tenant: str = "acme", private: bool = True) -> AdapterReceipt:
    receipt = AdapterReceipt(
        adapter_id="adapter",
        adapter_digest=folder_digest(folder),
        session_id="session",
        tenant=tenant,
        base_model="tiny",
        dataset_id=MEMBERS.dataset_id,
        membership_digest=merkle_root([TRAINED.encode(), HELD_OUT.encode()]),
        members_digest=content_digest(MEMBERS.to_json()),
        constitution=ConstitutionReference(hash=GOVERNANCE_HASH, digest=content_digest(b"constitution")),
        policy_revision=content_digest(b"policy"),
        code_version="0.1.0",
        mechanism=Mechanism(sampling_rate=0.1, noise_multiplier=1.0, clip_norm=1.0, expected_batch_size=4.0),
        steps=12,
        guarantee=PrivacyGuarantee(
            epsilon=7.5,
            delta=1e-5,
            unit=PrivacyUnit.RECORD,
            adjacency=Adjacency.ADD_REMOVE,
            accountant=Accountant.RDP,
        ),
        release=ReleaseVerdict(
            passed=True,
            reasons=(),
            checks=(ReleaseCheck(name="compliance", passed=True, got=1.0, expected=0.95, base=1.0),),
            probes_digest=content_digest(b"probes"),
        ),
        unsafe_unsigned_request=False,
    )
    if private:
        return receipt
    nothing = NoMechanism(unsafe_non_private=True, sampling_rate=0.1, expected_batch_size=4.0)
    return receipt.model_copy(update={"mechanism": nothing, "guarantee": NoGuarantee(unsafe_non_private=True)})


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Case]:
    def case(*, signed: bool = True, tenant: str = "acme", private: bool = True) -> Case:
        folder = tmp_path / "abcd"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        (folder / "adapter_config.json").write_bytes(b"{}")
        keyring = tmp_path / "keyring.json"
        key = read_signing_key(
            create_key(folder=tmp_path / "keys", keyring=keyring, key_id="notary", tenants=("acme",))
        )
        receipt = receipt_of(folder, tenant=tenant, private=private)
        statement = state_receipt(
            receipt, file_digests(folder), key_id="notary", private_key=key.private_key if signed else None
        )
        (tmp_path / "abcd.receipt.json").write_bytes(statement.to_json())
        (tmp_path / "abcd.members.json").write_bytes(MEMBERS.to_json())
        return Case(folder, tmp_path / "abcd.receipt.json", tmp_path / "abcd.members.json", keyring, key)

    return case


def test_a_signed_receipt_holds_for_its_adapter(make: Callable[..., Case]) -> None:
    case = make()
    read = case.verifier().read(case.receipt)
    verify_adapter(read, case.folder)
    assert read.signer == "notary"
    assert read.receipt == receipt_of(case.folder)


def test_the_envelope_is_plain_dsse_around_a_plain_statement_about_each_file(make: Callable[..., Case]) -> None:
    case = make()
    envelope = json.loads(case.receipt.read_bytes())
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    signed = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    (signature,) = envelope["signatures"]
    case.key.private_key.public_key().verify(base64.b64decode(signature["sig"]), signed)
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert {"name": "adapter_config.json", "digest": {"sha256": hashlib.sha256(b"{}").hexdigest()}} in statement[
        "subject"
    ]
    assert len(statement["subject"]) == 2


def test_a_changed_receipt_is_refused(make: Callable[..., Case]) -> None:
    case = make()
    changed = base64.b64encode(case.payload().replace(b'"epsilon":7.5', b'"epsilon":0.5')).decode()
    case.receipt.write_bytes(case.statement().model_copy(update={"payload": changed}).to_json())
    with pytest.raises(ReceiptError, match="signature of key 'notary' is wrong"):
        case.verifier().read(case.receipt)


def test_a_signature_by_another_key_under_the_same_id_is_refused(make: Callable[..., Case]) -> None:
    case = make()
    forged = Ed25519PrivateKey.generate().sign(authenticated_bytes(case.payload()))
    (signature,) = case.statement().signatures
    other = signature.model_copy(update={"sig": base64.b64encode(forged).decode()})
    case.receipt.write_bytes(case.statement().model_copy(update={"signatures": (other,)}).to_json())
    with pytest.raises(ReceiptError, match="is wrong"):
        case.verifier().read(case.receipt)


def test_a_receipt_by_a_stranger_is_refused(make: Callable[..., Case]) -> None:
    case = make()
    with pytest.raises(ReceiptError, match="no known keyring"):
        ReceiptVerifier(requesters={}).read(case.receipt)


def test_a_key_cannot_vouch_for_a_tenant_that_it_may_not_act_for(make: Callable[..., Case]) -> None:
    case = make(tenant="other")
    with pytest.raises(ReceiptError, match="may not act for tenant"):
        case.verifier().read(case.receipt)


def test_a_requester_of_the_tenant_cannot_vouch_where_one_signer_is_named(make: Callable[..., Case]) -> None:
    """A key that may send commands for a tenant may sign statements about its adapters, too: with any epsilon."""
    case = make()
    path = create_key(folder=case.folder.parent / "keys", keyring=case.keyring, key_id="rita", tenants=("acme",))
    forged = receipt_of(case.folder).model_copy(update={"steps": 1})
    key = read_signing_key(path).private_key
    case.receipt.write_bytes(state_receipt(forged, file_digests(case.folder), key_id="rita", private_key=key).to_json())
    command = ["receipt", "verify", str(case.receipt), "--keys", str(case.keyring), "--json"]
    assert json.loads(CliRunner().invoke(app, command).output)["signed_by"] == "rita"
    refused = CliRunner().invoke(app, [*command, "--signer", "notary"])
    assert refused.exit_code == 1
    assert "signed by rita, expected notary" in str(refused.exception)


def test_an_unsigned_receipt_is_taken_only_when_that_is_asked_for(make: Callable[..., Case]) -> None:
    case = make(signed=False)
    with pytest.raises(ReceiptError, match="unsigned"):
        case.verifier().read(case.receipt)
    assert case.verifier(unsafe_unsigned=True).read(case.receipt).signer is None
    named = ReceiptVerifier(requesters={}, unsafe_unsigned=True, only="notary")
    with pytest.raises(ReceiptError, match="signed by nobody, expected notary"):
        named.read(case.receipt)


def test_files_that_are_not_those_of_the_adapter_digest_are_refused(make: Callable[..., Case]) -> None:
    case = make(signed=False)
    digest = hashlib.sha256(b"{}").hexdigest().encode()
    changed = base64.b64encode(case.payload().replace(digest, b"0" * 64)).decode()
    case.receipt.write_bytes(case.statement().model_copy(update={"payload": changed}).to_json())
    with pytest.raises(ReceiptError, match="not that of its adapter"):
        case.verifier(unsafe_unsigned=True).read(case.receipt)


@pytest.mark.parametrize("name", ["adapter_config.json", "added.json"])
def test_an_adapter_with_a_changed_or_added_file_is_refused_by_name(make: Callable[..., Case], name: str) -> None:
    case = make()
    (case.folder / name).write_bytes(b"changed")
    with pytest.raises(ReceiptError, match=name):
        verify_adapter(case.verifier().read(case.receipt), case.folder)


@pytest.mark.parametrize("kind", ["file", "folder", "nothing", "pipe"])
def test_an_adapter_holds_plain_files_alone(make: Callable[..., Case], tmp_path: Path, kind: str) -> None:
    """Also a link to a file with the right content: it may have another one tomorrow."""
    case = make()
    elsewhere, name = tmp_path / "elsewhere", "adapter_config.json"
    if kind == "file":
        (case.folder / name).rename(elsewhere)
        (case.folder / name).symlink_to(elsewhere)
    elif kind == "pipe":
        name = "more"
        os.mkfifo(case.folder / name)
    else:
        name = "more"
        (case.folder / name).symlink_to(tmp_path if kind == "folder" else elsewhere)
    with pytest.raises(ReceiptError, match=f"not as the receipt says: {name}$"):
        verify_adapter(case.verifier().read(case.receipt), case.folder)


@pytest.mark.parametrize(
    ("sample", "standing"),
    [
        ("one", Standing.TRAINED),
        (TRAINED, Standing.TRAINED),
        ("two", Standing.HELD_OUT),
        (HELD_OUT, Standing.HELD_OUT),
        ("three", Standing.ABSENT),
    ],
)
def test_the_list_of_members_says_what_became_of_a_sample(
    make: Callable[..., Case], sample: str, standing: Standing
) -> None:
    case = make()
    assert standing_of(sample, receipt_of(case.folder), case.members) is standing


def test_another_list_of_members_is_refused(make: Callable[..., Case]) -> None:
    case = make()
    shorter = MEMBERS.model_copy(update={"train": ()})
    case.members.write_bytes(shorter.to_json())
    with pytest.raises(ReceiptError, match="not the list"):
        standing_of("one", receipt_of(case.folder), case.members)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"payload":"!","payloadType":"x","signatures":[]}'])
def test_what_is_no_receipt_is_refused_in_one_line(make: Callable[..., Case], content: bytes) -> None:
    case = make()
    case.receipt.write_bytes(content)
    with pytest.raises(ReceiptError, match="receipt"):
        case.verifier().read(case.receipt)


def test_the_command_answers_for_a_sample(make: Callable[..., Case]) -> None:
    case = make()
    command = ["receipt", "verify", str(case.receipt), "--adapter", str(case.folder), "--keys", str(case.keyring)]
    result = CliRunner().invoke(app, [*command, "--sample", "two", "--json"])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert (answer["signed_by"], answer["sample"], answer["epsilon"]) == ("notary", "held out", 7.5)
    assert answer["unsafe"] == []


def test_a_receipt_without_privacy_promises_nothing_and_says_so(make: Callable[..., Case]) -> None:
    case = make(private=False)
    command = ["receipt", "verify", str(case.receipt), "--keys", str(case.keyring), "--json"]
    answer = json.loads(CliRunner().invoke(app, command).output)
    assert (answer["guarantee"], answer["unsafe"]) == ("none", ["trained without privacy"])
    assert "epsilon" not in answer
