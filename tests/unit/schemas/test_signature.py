import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.signature import Requester, sign, verify

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"1")
ALICE = Requester(key_id="alice", public_key=KEY.public_key(), tenants=frozenset({"acme"}))
KEYRING = {"alice": ALICE}


def signed(key: bytes, value: bytes, by: Ed25519PrivateKey = KEY) -> str:
    return sign(by, key_id="alice", key=key, value=value)[1].decode()


def reason(signature: str | None, key: bytes = b"acme", value: bytes = b"{}") -> str:
    with pytest.raises(ContractError) as caught:
        verify(KEYRING, signature=signature, key=key, value=value)
    return caught.value.reason


@given(st.binary(max_size=20), st.binary(max_size=60))
def test_a_signature_tells_who_signed(key: bytes, value: bytes) -> None:
    assert verify(KEYRING, signature=signed(key, value), key=key, value=value) is ALICE


@given(st.binary(min_size=1, max_size=20), st.binary(max_size=20), st.data())
def test_no_byte_can_move_between_key_and_value(key: bytes, value: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(key) - 1))
    assert reason(signed(key, value), key[:cut], key[cut:] + value) == "bad-signature"


def test_a_changed_byte_breaks_the_signature() -> None:
    assert reason(signed(b"acme", b"{}"), b"acme", b"{ }") == "bad-signature"
    assert reason(signed(b"acme", b"{}"), b"acmE", b"{}") == "bad-signature"


def test_another_key_under_a_known_name_is_refused() -> None:
    assert reason(signed(b"acme", b"{}", by=OTHER)) == "bad-signature"


@pytest.mark.parametrize(
    ("signature", "expected"),
    [
        (None, "unsigned-command"),
        ("", "unknown-signer"),
        ("bob:AAAA", "unknown-signer"),
        ("alice", "bad-signature"),
        ("alice:", "bad-signature"),
        ("alice:!!!!", "bad-signature"),
        ("alice:\ufffd", "bad-signature"),
        ("alice:" + "A" * 100_000, "bad-signature"),
    ],
)
def test_what_is_no_signature_is_refused_with_its_reason(signature: str | None, expected: str) -> None:
    assert reason(signature) == expected


def test_a_requester_acts_for_its_tenants_and_one_with_a_star_for_all() -> None:
    everyone = Requester(key_id="root", public_key=KEY.public_key(), tenants=frozenset({"*"}))
    assert (ALICE.may_act_for("acme"), ALICE.may_act_for("umbrella")) == (True, False)
    assert everyone.may_act_for("umbrella")
