from pathlib import Path

import pytest

from ctrainer.schemas.envelope import header
from ctrainer.schemas.signature import SIGNATURE_HEADER, sign, verify
from ctrainer.streams.keyring import KeyringError, create_key, read_keyring, read_signing_key


def test_a_made_key_signs_what_the_keyring_verifies(tmp_path: Path) -> None:
    keyring = tmp_path / "keyring.json"
    path = create_key(folder=tmp_path, keyring=keyring, key_id="me", tenants=("acme",))
    key = read_signing_key(path)
    headers = (sign(key.private_key, key_id=key.key_id, key=b"acme", value=b"{}"),)
    signer = verify(read_keyring(keyring), signature=header(headers, SIGNATURE_HEADER), key=b"acme", value=b"{}")
    assert signer.key_id == "me"
    assert signer.may_act_for("acme")
    assert not signer.may_act_for("other")


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
