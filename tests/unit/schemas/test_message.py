import pytest

from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.message import Message


class Parcel(Message):
    name: str
    weight: float = 1.0


def test_equal_messages_give_equal_bytes_and_read_back() -> None:
    parcel = Parcel(name="Zoë", weight=0.5)
    assert parcel.to_json() == Parcel(weight=0.5, name="Zoë").to_json() == '{"name":"Zoë","weight":0.5}'.encode()
    assert Parcel.from_json(parcel.to_json()) == parcel


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"name":"a","colour":"red"}',
        b'{"name":"a","weight":NaN}',
        b'{"name":"a","weight":Infinity}',
        b'{"name":"a","weight":1e999}',
        b"[" * 10_000,
    ],
)
def test_what_is_no_such_message_is_refused(value: bytes | None) -> None:
    with pytest.raises(ContractError) as caught:
        Parcel.from_json(value)
    assert caught.value.reason == "invalid-message"


def test_an_error_names_the_field_and_none_of_its_text() -> None:
    with pytest.raises(ContractError) as caught:
        Parcel.from_json(b'{"name":["secret"],"weight":"secret"}')
    assert str(caught.value) == "Parcel: name: string_type; weight: float_parsing"


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Parcel(name="a").name = "b"  # type: ignore[misc] # that is what is tested
