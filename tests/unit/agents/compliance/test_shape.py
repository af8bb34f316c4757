import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.plain_record import MAX_MESSAGES
from ctrainer.agents.compliance.shape import ShapedSample, shape
from ctrainer.schemas.errors import ContractError

CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": 1}'}}
QUESTION = {"role": "user", "content": "Hello"}
BARE_CALL = {"function": {"name": "find", "arguments": {"q": 1}}}


def record(*messages: dict[str, Any], answer: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "timestamp": 1_763_640_074,
        "client_id": "shop",
        "workload_id": "desk",
        "request": {"messages": list(messages) or [{"role": "user", "content": "Hello"}]},
        "response": {"choices": [{"message": answer or {"role": "assistant", "content": "Good day."}}]},
        **changes,
    }


def shaped(value: dict[str, Any]) -> ShapedSample:
    return shape(json.dumps(value).encode())


def codes(sample: ShapedSample) -> list[tuple[str, str]]:
    return [(repair["code"], repair["path"]) for repair in sample.repairs]


@pytest.mark.parametrize("number", ["1e400", "-1e400", "Infinity", "NaN", "1" * 25])
@pytest.mark.parametrize("place", ["tools", "arguments"])
def test_a_number_that_json_does_not_have_is_not_changed_into_another_value(number: str, place: str) -> None:
    call = {"function": {"name": "f", "arguments": {"a": 7.25}}}
    messages = [QUESTION, {"role": "assistant", "content": "", "tool_calls": [call]}]
    whole = record(request={"messages": messages, "tools": [{"name": "f", "b": 8.25}]})
    shape(json.dumps(whole).encode())
    with pytest.raises(ContractError) as refused:
        shape(json.dumps(whole).replace("8.25" if place == "tools" else "7.25", number).encode())
    assert refused.value.reason in {"wrong-type", "invalid-tool-arguments", "not-json"}


def test_a_well_formed_record_needs_no_repair() -> None:
    sample = shaped(record(temperature=0.2))
    assert [(turn["role"], turn["content"]) for turn in sample.messages] == [
        ("user", "Hello"),
        ("assistant", "Good day."),
    ]
    assert (sample.tenant, sample.workload_id, sample.logged_at, sample.repairs) == ("shop", "desk", 1_763_640_074, [])


def test_an_agent_toolkit_record_is_brought_into_one_form() -> None:
    question = {"role": "human", "content": "Find it"}
    calling = {"role": "ai", "content": None, "tool_calls": [BARE_CALL]}
    answer = {"role": "tool", "content": "found", "tool_call_id": "t9"}
    sample = shaped(record(question, calling, answer, contract_version="1.1", error_details=None))
    assert [turn["role"] for turn in sample.messages] == ["user", "assistant", "tool", "assistant"]
    (call,) = sample.messages[1]["tool_calls"]
    assert (call["id"], call["function"]["arguments"]) == ("t9", '{"q":1}')
    assert sample.messages[2]["tool_call_id"] == "t9"
    assert codes(sample) == [
        ("role-renamed", "request.messages.0.role"),
        ("role-renamed", "request.messages.1.role"),
        ("tool-call-type-assigned", "request.messages.1.tool_calls.0.type"),
        ("arguments-as-object", "request.messages.1.tool_calls.0.function.arguments"),
        ("tool-answer-linked-by-order", "request.messages.2.tool_call_id"),
    ]


def test_calls_and_answers_without_any_id_are_linked_by_order() -> None:
    calling = {"role": "assistant", "tool_calls": [BARE_CALL, BARE_CALL]}
    answers = [{"role": "tool", "content": "first"}, {"role": "tool", "content": "second"}]
    sample = shaped(record({"role": "user", "content": "x"}, calling, *answers))
    assert [call["id"] for call in sample.messages[1]["tool_calls"]] == ["call_1", "call_2"]
    assert [turn["tool_call_id"] for turn in sample.messages[2:4]] == ["call_1", "call_2"]


def test_milliseconds_become_seconds() -> None:
    sample = shaped(record(timestamp=1_763_640_074_123))
    assert (sample.logged_at, codes(sample)) == (1_763_640_074, [("milliseconds-to-seconds", "timestamp")])


def test_turns_of_one_conversation_share_its_id_and_tenants_never_do() -> None:
    opening = {"role": "user", "content": "Hello"}
    later = [opening, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And now?"}]
    assert shaped(record(opening)).conversation_id == shaped(record(*later)).conversation_id
    assert shaped(record(opening)).conversation_id != shaped(record(opening, client_id="other")).conversation_id


def test_a_given_conversation_id_counts() -> None:
    def named(text: str) -> dict[str, Any]:
        request = {"messages": [{"role": "user", "content": text}], "metadata": {"session_id": "s1"}, "user": "ann"}
        return record(request=request)

    first, second = shaped(named("one")), shaped(named("two"))
    assert first.conversation_id == second.conversation_id
    assert first.user_digest == second.user_digest
    assert first.user_digest is not None
    assert "ann" not in first.user_digest


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty-record"),
        (b" ", "empty-record"),
        (b"{", "not-json"),
        (b'{"client_id": "\xff"}', "not-utf8"),
        (b"[]", "not-an-object"),
        (b"{}", "missing-field"),
        (json.dumps(record(client_id="a/b")).encode(), "wrong-type"),
        (json.dumps(record(timestamp="soon")).encode(), "wrong-type"),
        (json.dumps(record(request={"messages": [QUESTION], "model": "m" * 1_025})).encode(), "wrong-type"),
        (json.dumps(record(request={"messages": [QUESTION], "model": "m" * 1_025}, x=[1])).encode(), "wrong-type"),
        (json.dumps(record(request={"messages": []})).encode(), "no-messages"),
        (json.dumps(record(response={"choices": None})).encode(), "no-choices"),
        (json.dumps(record(response={}, error_details="boom")).encode(), "logged-error"),
        (json.dumps(record(answer={"content": " "})).encode(), "empty-response"),
        (json.dumps(record({"role": "tool", "content": "", "tool_call_id": "c1"})).encode(), "broken-tool-link"),
        (json.dumps(record(answer={"tool_calls": [CALL, CALL]})).encode(), "broken-tool-link"),
        (
            json.dumps(record(answer={"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]})).encode(),
            "invalid-tool-arguments",
        ),
        (
            json.dumps(record(answer={"tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]})).encode(),
            "invalid-tool-arguments",
        ),
        (json.dumps(record(contract_version="2.0")).encode(), "unknown-contract-version"),
        (json.dumps(record(constitutional_hash="0000")).encode(), "foreign-constitution-hash"),
        (json.dumps(record(*[{"role": "user", "content": "x"}] * (MAX_MESSAGES + 1))).encode(), "too-many-messages"),
        (b'"' + b"x" * 1_048_576 + b'"', "record-too-large"),
    ],
)
def test_what_cannot_be_repaired_has_a_precise_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(ContractError) as refused:
        shape(value)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((("ce_constitutionhash", b"0000"),), "foreign-constitution-hash"),
        ((("schema-version", b"9"),), "unknown-schema-version"),
    ],
)
def test_headers_of_another_regime_or_version_are_refused(headers: tuple[tuple[str, bytes], ...], reason: str) -> None:
    with pytest.raises(ContractError) as refused:
        shape(json.dumps(record()).encode(), headers)
    assert refused.value.reason == reason


@given(st.binary(max_size=200))
def test_any_bytes_are_shaped_or_refused_with_a_reason(value: bytes) -> None:
    with pytest.raises(ContractError) as refused:
        shape(value)
    assert refused.value.reason
