from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.envelope import (
    Event,
    binary_headers,
    event_type,
    header,
    require_known_version,
    structured_headers,
    time_of,
    traceparent_of,
)
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.privacy import BudgetViolated

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
VIOLATED = BudgetViolated(scope="acme/default", tenant="acme", session_id="s", reason="r", message="m")


def event(**changes: object) -> Event[BudgetViolated]:
    attributes: dict[str, object] = {
        "id": "i",
        "source": "privacy.requests/0/1",
        "type": event_type(BudgetViolated),
        "subject": "acme/default",
        "time": time_of(1_700_000_000_123),
        "constitutionhash": GOVERNANCE_HASH,
        "constitutiondigest": "sha256:ab",
        "data": VIOLATED,
    }
    return Event[BudgetViolated].model_validate({**attributes, **changes})


def test_an_event_is_read_back_as_it_was_written() -> None:
    assert Event[BudgetViolated].from_json(event().to_json()) == event()
    assert b'"specversion":"1.0"' in event().to_json()
    assert b'"time":"2023-11-14T22:13:20.123000Z"' in event().to_json()


def test_an_event_of_other_data_or_of_another_version_is_refused() -> None:
    for value in (event().to_json().replace(b'"scope"', b'"scape"'), event().to_json().replace(b'"1.0"', b'"2.0"')):
        with pytest.raises(ContractError):
            Event[BudgetViolated].from_json(value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_timestamp_that_a_record_can_have_is_a_time(timestamp: int) -> None:
    assert 1970 <= time_of(timestamp).year <= 9999


def test_an_ordinary_timestamp_is_exact_to_the_millisecond() -> None:
    assert time_of(1_700_000_000_123) == datetime(2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC)


def test_the_last_header_of_a_name_counts_and_bytes_that_are_no_text_are_replaced() -> None:
    headers = (("a", b"1"), ("a", b"2"), ("b", b"\xff"))
    assert (header(headers, "a"), header(headers, "b"), header(headers, "c")) == ("2", "\ufffd", None)


@pytest.mark.parametrize("version", [b"0", b"2", b"", b"1 ", b"\xff", b"1" * 5_000])
def test_a_version_that_is_not_known_is_refused_in_few_words(version: bytes) -> None:
    with pytest.raises(ContractError) as caught:
        require_known_version((("schema-version", version),))
    assert caught.value.reason == "unknown-schema-version"
    assert len(str(caught.value)) < 100


def test_the_known_version_and_none_are_accepted() -> None:
    require_known_version((("schema-version", b"1"),))
    require_known_version(())


def test_what_we_write_has_a_version_that_we_read() -> None:
    require_known_version(structured_headers())
    require_known_version(binary_headers({"id": "i"}))


def test_binary_headers_are_the_attributes_with_their_prefix() -> None:
    headers = binary_headers({"id": "i", "type": "t"})
    assert (header(headers, "ce_id"), header(headers, "ce_type"), header(headers, "ce_specversion")) == (
        "i",
        "t",
        "1.0",
    )


def test_a_trace_is_carried_on_if_it_is_one() -> None:
    assert traceparent_of(structured_headers(TRACE)) == TRACE
    assert header(structured_headers(None), "traceparent") is None


@pytest.mark.parametrize("value", ["", "x", TRACE.upper(), TRACE + "\n", TRACE + "-00", "0" * 100_000])
def test_what_is_no_trace_is_not_carried_on(value: str) -> None:
    assert traceparent_of((("traceparent", value.encode()),)) is None
