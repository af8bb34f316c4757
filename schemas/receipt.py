"""The receipt of an adapter: an in-toto statement in a DSSE envelope, which anyone's tools can verify.

Sources: in-toto Attestation Framework, Statement v1; DSSE 1.0.2 (github.com/secure-systems-lab/dsse).
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.identity import canonical_bytes
from ctrainer.schemas.message import Message
from ctrainer.schemas.privacy import Mechanism, NoGuarantee, NoMechanism, PrivacyGuarantee
from ctrainer.schemas.release import ReleaseVerdict
from ctrainer.schemas.signature import Requester

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:org.constitutional-trainer:adapter-receipt:v1"


class StatementSignature(Message):
    """An Ed25519 signature, in base64, by the key of this id."""

    keyid: str
    sig: str


class SignedStatement(Message):
    """A DSSE envelope: `payload` is the statement in base64. Without `signatures` it does not prove who made it."""

    payload: str
    payloadType: str  # noqa: N815 - the name that the specification gives
    signatures: tuple[StatementSignature, ...]


class AdapterReceipt(Message):
    """What is claimed about an adapter.

    Only the outcome of the private checks in `release` was computed from private records without noise.
    `members_digest` is that of the file beside the adapter that lists the members of its dataset. `guarantee` is what
    the budget scope had spent after the last step: that of this adapter and of all that came before it.
    """

    adapter_id: str
    adapter_digest: str
    session_id: str
    tenant: str
    base_model: str
    dataset_id: str
    membership_digest: str
    members_digest: str
    constitution: ConstitutionReference
    policy_revision: str
    code_version: str
    mechanism: Mechanism | NoMechanism
    steps: int = Field(ge=0)
    guarantee: PrivacyGuarantee | NoGuarantee
    release: ReleaseVerdict
    unsafe_unsigned_request: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReceipt:
    """A receipt, the SHA-256 of each file of the adapter, and whose signature on both holds, if anyone's."""

    receipt: AdapterReceipt
    files: Mapping[str, str]
    signer: str | None


def state_receipt(
    receipt: AdapterReceipt, files: Mapping[str, str], *, key_id: str = "", private_key: Ed25519PrivateKey | None = None
) -> SignedStatement:
    """Return the statement about an adapter's files (SHA-256 in hexadecimal by name); without a key it is unsigned."""
    payload = canonical_bytes(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)],
            "predicateType": PREDICATE_TYPE,
            "predicate": receipt.model_dump(mode="json"),
        }
    )
    signatures = () if private_key is None else (_signature(payload, key_id, private_key),)
    return SignedStatement(payload=base64.b64encode(payload).decode(), payloadType=PAYLOAD_TYPE, signatures=signatures)


def read_receipt(statement: SignedStatement, requesters: Mapping[str, Requester]) -> ReadReceipt:
    """Read a receipt and verify every signature on it; `requesters` are the known keys by id.

    Raises:
        ContractError: `not-a-receipt`, `unknown-signer`, `foreign-tenant` or `bad-signature`.
    """
    payload = _decoded(statement.payload)
    if statement.payloadType != PAYLOAD_TYPE:
        raise ContractError("not-a-receipt", f"payloadType: expected {PAYLOAD_TYPE}")
    receipt, files = _parsed(payload)
    signers = [_signer(signature, payload, receipt.tenant, requesters) for signature in statement.signatures]
    return ReadReceipt(receipt=receipt, files=files, signer=signers[0] if signers else None)


def authenticated_bytes(payload: bytes) -> bytes:
    """Return what is signed: the pre-authentication encoding of DSSE.

    >>> authenticated_bytes(b"{}")
    b'DSSEv1 28 application/vnd.in-toto+json 2 {}'
    """
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _signature(payload: bytes, key_id: str, private_key: Ed25519PrivateKey) -> StatementSignature:
    signature = private_key.sign(authenticated_bytes(payload))
    return StatementSignature(keyid=key_id, sig=base64.b64encode(signature).decode())


def _signer(signature: StatementSignature, payload: bytes, tenant: str, requesters: Mapping[str, Requester]) -> str:
    requester = requesters.get(signature.keyid)
    if requester is None:
        raise ContractError("unknown-signer", "receipt: the key id of its signature is in no known keyring")
    if not requester.may_act_for(tenant):
        raise ContractError("foreign-tenant", f"receipt: key {requester.key_id!r} may not act for tenant {tenant!r}")
    try:
        requester.public_key.verify(_decoded(signature.sig), authenticated_bytes(payload))
    except InvalidSignature as error:
        raise ContractError("bad-signature", f"receipt: the signature of key {requester.key_id!r} is wrong") from error
    return requester.key_id


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ContractError("not-a-receipt", "receipt: payload and signatures must be base64") from error


def _parsed(payload: bytes) -> tuple[AdapterReceipt, Mapping[str, str]]:
    try:
        statement = orjson.loads(payload)
        kinds = (statement["_type"], statement["predicateType"])
        files = {str(subject["name"]): str(subject["digest"]["sha256"]) for subject in statement["subject"]}
        predicate = orjson.dumps(statement["predicate"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ContractError("not-a-receipt", "receipt: expected an in-toto statement about files") from error
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ContractError("not-a-receipt", f"receipt: expected {PREDICATE_TYPE} in {STATEMENT_TYPE}")
    return AdapterReceipt.from_json(predicate), files
