"""Keys of requesters on disk: who may send training commands, and the private key one person sends with.

The keyring is JSON: `{"requesters": [{"key_id": ..., "public_key": base64 of 32 bytes, "tenants": [...]}]}`.
"""

import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from ctrainer.schemas.errors import ConstitutionalTrainerError, ContractError
from ctrainer.schemas.message import Message
from ctrainer.schemas.signature import Requester


class KeyringError(ConstitutionalTrainerError):
    """A keyring or key file cannot be used. The message names the file and what it should hold."""


class RequesterEntry(Message):
    """One requester as the keyring file holds it."""

    key_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    public_key: str
    tenants: tuple[str, ...] = Field(min_length=1)


class Keyring(Message):
    """Everyone who may send commands."""

    requesters: tuple[RequesterEntry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key together with the id that the keyring knows it by."""

    key_id: str
    private_key: Ed25519PrivateKey


def read_keyring(path: Path) -> dict[str, Requester]:
    """Return the requesters of a keyring file by key id.

    Raises:
        KeyringError: the file is missing, is no keyring, or names a key id twice.
    """
    try:
        keyring = Keyring.from_json(path.read_bytes())
        requesters = {entry.key_id: _requester(entry) for entry in keyring.requesters}
    except (OSError, ContractError, ValueError, binascii.Error) as error:
        raise KeyringError(f"keyring {path}: {error}; `ctrainer keys create` makes one") from error
    if len(requesters) != len(keyring.requesters):
        raise KeyringError(f"keyring {path}: a key id stands there twice; each key id names one requester")
    return requesters


def create_key(*, folder: Path, keyring: Path, key_id: str, tenants: tuple[str, ...]) -> Path:
    """Make a private key file only its owner can read, add its public half to `keyring`, and return its path.

    Raises:
        KeyringError: a key of this id exists already.
    """
    path = folder / f"{key_id}.pem"
    entries = Keyring.from_json(keyring.read_bytes()).requesters if keyring.exists() else ()
    if path.exists() or key_id in {entry.key_id for entry in entries}:
        raise KeyringError(f"key {key_id!r} exists already; choose another id")
    private_key = Ed25519PrivateKey.generate()
    _write_private(path, private_key)
    public = base64.b64encode(private_key.public_key().public_bytes_raw()).decode()
    added = RequesterEntry(key_id=key_id, public_key=public, tenants=tenants)
    _replace(keyring, Keyring(requesters=(*entries, added)).to_json())
    return path


def read_signing_key(path: Path) -> SigningKey:
    """Return the private key in a PEM file; the file's name is its key id.

    Raises:
        KeyringError: the file is missing or holds no Ed25519 key.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise KeyringError(f"signing key {path}: {error}; `ctrainer keys create` makes one") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyringError(f"signing key {path}: got {type(key).__name__}, expected an Ed25519 private key")
    return SigningKey(key_id=path.stem, private_key=key)


def _requester(entry: RequesterEntry) -> Requester:
    public_key = Ed25519PublicKey.from_public_bytes(base64.b64decode(entry.public_key, validate=True))
    return Requester(key_id=entry.key_id, public_key=public_key, tenants=frozenset(entry.tenants))


def _replace(path: Path, content: bytes) -> None:
    """Write a file as a whole: whoever reads it meanwhile reads the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def _write_private(path: Path, key: Ed25519PrivateKey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
