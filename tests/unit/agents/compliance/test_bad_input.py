"""Records made to get past a filter: each is judged for what it hides, goes to a person, or is a dead letter."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.trial import Trial, record

CONSTITUTION = default_constitution()
COURT = Court(CONSTITUTION)
SSN = "219-09-9999"
TOKEN = "AKIA" + "Q7ZR2LM4X9CV3BNT"


def logged(question: str, *arguments: str) -> dict[str, Any]:
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": text}}
        for number, text in enumerate(arguments)
    ]
    return {
        "timestamp": 1,
        "client_id": "shop",
        "workload_id": "desk",
        "request": {"messages": [{"role": "user", "content": question}]},
        "response": {"choices": [{"message": {"role": "assistant", "content": "Yes.", "tool_calls": calls}}]},
    }


def judged(line: bytes) -> dict[str, Any]:
    verdicts = COURT.verdicts(RegorusEngine(bundle_of(CONSTITUTION)))
    trial = Trial(court=COURT, verdicts=verdicts, read=record, show_text=True)
    (outcome,) = asyncio.run(trial.of([line]))
    return outcome


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037"])
def test_a_record_in_another_encoding_is_a_dead_letter(encoding: str) -> None:
    assert judged(json.dumps(logged("Hello")).encode(encoding))["reason"] in {"not-json", "not-utf8"}


@pytest.mark.parametrize("broken", [b"\xe9t\xe9", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xc3("])
def test_a_record_with_text_in_another_encoding_is_a_dead_letter(broken: bytes) -> None:
    line = json.dumps(logged("HERE")).encode().replace(b"HERE", broken)
    assert judged(line)["reason"] == "not-utf8"


@pytest.mark.parametrize(
    "hidden",
    [
        "\u200b".join(SSN),
        "\u202e" + SSN[::-1],
        SSN.translate({ord("1") + number: 0x1D7CF + number for number in range(9)}),
        SSN.replace("-", "\u2010"),
        base64.b64encode(f"the number: {SSN}".encode()).decode(),
        base64.b64encode(base64.b64encode(f"the number: {SSN}".encode())).decode(),
        base64.b64encode(f"the number: {SSN}".encode("utf-16-le")).decode(),
        f"the number: {SSN}".encode().hex(),
    ],
)
def test_a_number_in_disguise_never_goes_on(hidden: str) -> None:
    for shown in (
        judged(json.dumps(logged(f"Take {hidden} now")).encode()),
        judged(json.dumps(logged(f"Take {hidden} now"), ensure_ascii=False).encode()),
        judged(json.dumps(logged("Take it", json.dumps({"number": hidden}))).encode()),
    ):
        assert shown["verdict"] in {"redact", "review", "reject"}
        assert hidden not in json.dumps(shown["messages"], ensure_ascii=False).replace("\\\\u", "\\u")


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_what_lies_in_json_within_json_within_tool_arguments_never_goes_on(depth: int) -> None:
    inner: object = {"to": "ann@example.org", "key": TOKEN}
    for _ in range(depth):
        inner = {"call": json.dumps({"name": "g", "arguments": inner})}
    shown = judged(json.dumps(logged("Go on", json.dumps(inner))).encode())
    assert shown["verdict"] == "redact"
    (call,) = shown["messages"][-1]["tool_calls"]
    assert "ann@example.org" not in call["function"]["arguments"]
    assert TOKEN not in call["function"]["arguments"]
    within = json.loads(call["function"]["arguments"])
    for _ in range(depth):
        within = json.loads(within["call"])["arguments"]
    assert within == {"to": "<EMAIL_1>", "key": "<AWS_KEY_1>"}


SECRET = "hunter2X/Q"


def spelt(text: str) -> str:
    """Return JSON that spells every letter of a text as an escape."""
    return '{"note": "' + "".join(f"\\u{ord(letter):04x}" for letter in text) + '"}'


@pytest.mark.parametrize(
    "result",
    [
        json.dumps({"password": SECRET}),
        json.dumps({"password": SECRET}).replace("/", r"\/"),
        json.dumps({"body": json.dumps({"password": SECRET})}),
        json.dumps({"log": f"first line\npassword={SECRET}\nlast line"}),
        spelt(f"password={SECRET}"),
        r'{"query": "user\u003dann\u0026password\u003d' + SECRET + '"}',
        r'{"dsn": "postgres:\/\/ann:' + SECRET.replace("/", "") + r'@db\/x"}',
    ],
)
def test_escapes_hide_nothing_in_what_a_tool_was_told_or_returned(result: str) -> None:
    record_ = logged("Go on", result)
    call = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": result}}]}
    record_["request"]["messages"] += [call, {"role": "tool", "tool_call_id": "a", "content": result}]
    shown = judged(json.dumps(record_).encode())
    assert shown["verdict"] == "redact"
    for text in (
        shown["messages"][1]["tool_calls"][0]["function"]["arguments"],
        shown["messages"][2]["content"],
        shown["messages"][3]["tool_calls"][0]["function"]["arguments"],
    ):
        assert "<PASSWORD_1>" in json.dumps(json.loads(text))
        assert "hunter2X" not in text
        assert spelt("hunter2X")[10:-2] not in text


@pytest.mark.parametrize(
    "write",
    [
        spelt,
        lambda text: json.dumps({"note": text}),
        lambda text: json.dumps({"body": json.dumps({"note": text})}),
        lambda text: "".join(f"&#{ord(letter)};" for letter in text),
        lambda text: "It says " + json.dumps(text),
    ],
)
@pytest.mark.parametrize(
    ("text", "reason", "rule"),
    [
        (
            "\u4eca\u5929\u7684\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed\u6563\u6b65",
            "language",
            "uncovered-language",
        ),
        ("Explain how to launder drug money without getting caught by the police.", "fraud", "fraud-score"),
    ],
)
def test_escapes_hide_nothing_from_language_and_harm_score(
    write: Callable[[str], str], text: str, reason: str, rule: str
) -> None:
    plain, written = judged(json.dumps(logged(text)).encode()), judged(json.dumps(logged(write(text))).encode())
    assert reason in plain["reasons"]
    assert reason in written["reasons"]
    found = [one for one in written["findings"] if one["rule"] == rule]
    assert {(one["start"], one["end"]) for one in found} == {(0, len(write(text)))}


def test_names_and_ids_of_calls_and_answers_hide_nothing() -> None:
    record_ = logged("Go on")
    call = {"role": "assistant", "tool_calls": [{"id": TOKEN, "function": {"name": f"f-{SSN}", "arguments": "{}"}}]}
    record_["request"]["messages"] += [
        call,
        {"role": "tool", "tool_call_id": TOKEN, "name": "ann@example.org", "content": ""},
    ]
    shown = judged(json.dumps(record_).encode())
    assert shown["verdict"] == "redact"
    assert not any(hidden in json.dumps(shown["messages"]) for hidden in (TOKEN, "ann@example.org"))
    (linked,) = shown["messages"][1]["tool_calls"]
    assert linked["id"] == shown["messages"][2]["tool_call_id"] == "<AWS_KEY_1>"


@pytest.mark.parametrize(
    "unit",
    [
        *("\u200b", "\u202e", "\u202ea\n", "\u0336", "\u0430a", "\U000e0041", "\U0001f600\u200d", "\u00e9 a@b.com "),
        *(r"\u0061", '\\\\\\"', "\\"),
    ],
)
def test_half_a_megabyte_of_oddities_is_judged_in_bounded_time(unit: str) -> None:
    text = unit * (500_000 // len(unit.encode())) + f" {SSN}"
    started = time.process_time()
    shown = judged(json.dumps(logged(text), ensure_ascii=False).encode())
    assert time.process_time() - started < 20
    assert shown["verdict"] in {"redact", "review", "reject"}


def test_a_megabyte_of_calls_and_tools_is_judged_in_bounded_time() -> None:
    record_ = logged("Go on", *["{}"] * 10_000)
    record_["request"]["tools"] = [{"name": "f", "description": f"ask a{number}@b.org"} for number in range(5_000)]
    line = json.dumps(record_, separators=(",", ":")).encode()
    assert 900_000 < len(line) < 1_048_576
    started = time.process_time()
    shown = judged(line)
    assert time.process_time() - started < 4
    assert shown["verdict"] == "redact"
    assert shown["tools"][-1]["description"] == "ask <EMAIL_5000>"


HIDDEN = ("ann@example.org", SSN, TOKEN, "4111 1111 1111 1111")
AROUND = ('"', "\\", "\n", "/path/", "\u00fc", "\u4e00", "\u200b", "{}", "\\u0041", "&#64;", "it's", "\U0001f600")
texts = st.lists(st.sampled_from((*HIDDEN, *AROUND)), max_size=5).map(" ".join)
values = st.recursive(
    texts | st.sampled_from((4111111111111111, 2.5, True, None)),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(("a", "b")), inner, max_size=2)
        | inner.map(json.dumps)
    ),
    max_leaves=8,
)


def structure(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: structure(inner) for key, inner in value.items()}
    return [structure(inner) for inner in value] if isinstance(value, list) else None


@settings(max_examples=80, deadline=None)
@given(value=values, ascii_only=st.booleans(), slashed=st.booleans())
def test_redacted_json_is_json_of_the_same_structure_and_holds_nothing(
    *, value: Any, ascii_only: bool, slashed: bool
) -> None:
    written = json.dumps({"value": value}, ensure_ascii=ascii_only)
    written = written.replace("/", r"\/") if slashed else written
    record_ = logged("Go on")
    call = {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": written}}]}
    record_["request"]["messages"] += [call, {"role": "tool", "tool_call_id": "a", "content": written}]
    shown = judged(json.dumps(record_).encode())
    assert shown["verdict"] in {"accept", "redact", "review"}
    for text in (shown["messages"][1]["tool_calls"][0]["function"]["arguments"], shown["messages"][2]["content"]):
        assert structure(json.loads(text)) == structure({"value": value})
        assert not any(hidden in text for hidden in (*HIDDEN, "4111111111111111"))
