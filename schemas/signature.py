"""Signed commands: an Ed25519 signature in a header, over the exact bytes of key and value.

A signature holds for one record key and one value only; a repeated command is recognised by its request id.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ctrainer.schemas.errors import ContractError

SIGNATURE_HEADER = "ctrainer-signature"
ANY_TENANT = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Someone who may send commands for some tenants."""

    key_id: str
    public_key: Ed25519PublicKey
    tenants: frozenset[str]

    def may_act_for(self, tenant: str) -> bool:
        """Return whether this requester may send commands for `tenant`."""
        return tenant in self.tenants or ANY_TENANT in self.tenants


def sign(private_key: Ed25519PrivateKey, *, key_id: str, key: bytes, value: bytes) -> tuple[str, bytes]:
    """Return the signature header for a command record."""
    signature = base64.b64encode(private_key.sign(_signed_bytes(key, value))).decode()
    return SIGNATURE_HEADER, f"{key_id}:{signature}".encode()


def verify(requesters: Mapping[str, Requester], *, signature: str | None, key: bytes, value: bytes) -> Requester:
    """Return who signed a command.

    Raises:
        ContractError: `unsigned-command`, `unknown-signer` or `bad-signature`.
    """
    if signature is None:
        raise ContractError("unsigned-command", f"header {SIGNATURE_HEADER}: got none, expected key-id:signature")
    key_id, _, encoded = signature.partition(":")
    requester = requesters.get(key_id)
    if requester is None:
        raise ContractError("unknown-signer", f"header {SIGNATURE_HEADER}: the key id is in no known keyring")
    try:
        requester.public_key.verify(base64.b64decode(encoded, validate=True), _signed_bytes(key, value))
    except (InvalidSignature, ValueError) as error:
        raise ContractError("bad-signature", f"the signature of key {key_id!r} does not fit this record") from error
    return requester


def _signed_bytes(key: bytes, value: bytes) -> bytes:
    """Key and value with the key's length before them, so that no byte can move from one to the other."""
    return b"ctrainer-command-v1\n" + len(key).to_bytes(4, "big") + key + value
