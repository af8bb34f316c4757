import json
import os
from pathlib import Path

import pytest

from ctrainer.schemas.envelope import header
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.signature import SIGNATURE_HEADER, sign, verify
from ctrainer.streams.keyring import KeyringError, SigningKey, create_key, read_keyring, read_signing_key
from ctrainer.streams.watched_keyring import KeyringUnreadableError, WatchedKeyring


def test_a_made_key_signs_what_the_keyring_verifies(tmp_path: Path) -> None:
    keyring = tmp_path / "keyring.json"
    path = create_key(folder=tmp_path, keyring=keyring, key_id="me", tenants=("acme",))
    key = read_signing_key(path)
    headers = (sign(key.private_key, key_id=key.key_id, key=b"acme", value=b"{}"),)
    signer = verify(read_keyring(keyring), signature=header(headers, SIGNATURE_HEADER), key=b"acme", value=b"{}")
    assert signer.key_id == "me"
    assert signer.may_act_for("acme")
    assert not signer.may_act_for("other")


def sent_by(key: SigningKey) -> str:
    _, value = sign(key.private_key, key_id=key.key_id, key=b"acme", value=b"{}")
    return value.decode()


def test_keys_are_rotated_under_a_running_worker(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    old = sent_by(read_signing_key(create_key(folder=tmp_path, keyring=path, key_id="old", tenants=("acme",))))
    keyring = WatchedKeyring(path)
    assert verify(keyring, signature=old, key=b"acme", value=b"{}").key_id == "old"
    new = sent_by(read_signing_key(create_key(folder=tmp_path, keyring=path, key_id="new", tenants=("acme",))))
    assert verify(keyring, signature=new, key=b"acme", value=b"{}").key_id == "new"
    assert sorted(keyring) == ["new", "old"]
    entries = json.loads(path.read_text())["requesters"]
    path.write_text(json.dumps({"requesters": [entry for entry in entries if entry["key_id"] == "new"]}))
    with pytest.raises(ContractError, match="no known keyring"):
        verify(keyring, signature=old, key=b"acme", value=b"{}")
    assert len(keyring) == 1


def test_a_mounted_secret_that_is_swapped_is_seen_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_key(folder=tmp_path / name, keyring=tmp_path / name / "keyring.json", key_id=name, tenants=("acme",))
        os.utime(tmp_path / name / "keyring.json", ns=(1, 1))
    (tmp_path / "mounted").symlink_to("one")
    keyring = WatchedKeyring(tmp_path / "mounted" / "keyring.json")
    assert list(keyring) == ["one"]
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(tmp_path / "mounted")
    assert list(keyring) == ["two"]


@pytest.mark.parametrize("content", ["", "{", None])
def test_while_a_changed_keyring_cannot_be_read_nobody_is_known_and_no_command_is_refused_for_it(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "keyring.json"
    signature = sent_by(read_signing_key(create_key(folder=tmp_path, keyring=path, key_id="me", tenants=("acme",))))
    whole, keyring = path.read_bytes(), WatchedKeyring(path)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    for _ in range(2):
        with pytest.raises(KeyringUnreadableError):
            verify(keyring, signature=signature, key=b"acme", value=b"{}")
    path.write_bytes(whole)
    assert verify(keyring, signature=signature, key=b"acme", value=b"{}").key_id == "me"


def test_a_worker_does_not_start_with_a_broken_keyring(tmp_path: Path) -> None:
    with pytest.raises(KeyringError):
        WatchedKeyring(tmp_path / "keyring.json")


def test_a_private_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = create_key(folder=tmp_path, keyring=tmp_path / "keyring.json", key_id="me", tenants=("acme",))
    assert path.stat().st_mode & 0o077 == 0


def test_a_key_id_is_given_once(tmp_path: Path) -> None:
    keyring = tmp_path / "keyring.json"
    create_key(folder=tmp_path / "a", keyring=keyring, key_id="me", tenants=("acme",))
    with pytest.raises(KeyringError, match="exists already"):
        create_key(folder=tmp_path / "b", keyring=keyring, key_id="me", tenants=("acme",))


@pytest.mark.parametrize("content", ["", "{", '{"requesters": [{"key_id": "a", "public_key": "x", "tenants": ["t"]}]}'])
def test_a_broken_keyring_is_named_with_what_makes_one(tmp_path: Path, content: str) -> None:
    keyring = tmp_path / "keyring.json"
    keyring.write_text(content)
    with pytest.raises(KeyringError, match=r"keyring\.json.*ctrainer keys create"):
        read_keyring(keyring)
