import doctest
import json
import re

import pytest

from ctrainer.agents.compliance import redaction
from ctrainer.agents.compliance.conversation import Call, CalledFunction, Turn
from ctrainer.agents.compliance.detectors.findings import Found, Source
from ctrainer.agents.compliance.redaction import redact
from ctrainer.schemas.compliance import Severity
from ctrainer.schemas.constitution import Action, Principle, Rule

RULES = {name: Rule(id=name, label=name.upper(), pattern="x") for name in ("email", "card")}
PRINCIPLE = Principle(id="p", statement="s", severity=Severity.HIGH, action=Action.REDACT)


def found(rule: str, start: int, end: int, *, index: int = 0, field: str = "content") -> Found:
    return Found(Source(PRINCIPLE, RULES[rule]), index, field, start, end, 1.0)


def said(text: str, *calls: Call) -> Turn:
    return Turn(role="user", content=text, tool_calls=list(calls), tool_call_id=None, name=None)


def calling(arguments: str) -> Turn:
    function = CalledFunction(name="f", arguments=arguments)
    return said("", Call(id="c", type="function", function=function))


def test_overlapping_spans_become_one_placeholder_of_the_widest() -> None:
    message = said("abcdefghij")
    redacted = redact([message], (), [found("email", 1, 4), found("card", 2, 9)])
    assert redacted.messages[0]["content"] == "a<CARD_1>j"
    assert [(entry["rule"], entry["count"]) for entry in redacted.redactions] == [("card", 1)]


def test_the_same_text_has_the_same_placeholder_in_every_message() -> None:
    messages = [said("a@b c@d"), calling('{"to": "a@b"}')]
    findings = [
        found("email", 0, 3),
        found("email", 4, 7),
        found("email", 8, 11, index=1, field="tool_calls.0.arguments"),
    ]
    redacted = redact(messages, (), findings)
    assert redacted.messages[0]["content"] == "<EMAIL_1> <EMAIL_2>"
    assert json.loads(redacted.messages[1]["tool_calls"][0]["function"]["arguments"]) == {"to": "<EMAIL_1>"}


def test_tool_arguments_stay_json_when_a_number_or_several_tokens_are_replaced() -> None:
    text = '{"card": 4111111111111111, "a": "x", "b": "y"}'
    number = text.index("4111")
    findings = [
        found("card", number, number + 16, field="tool_calls.0.arguments"),
        found("email", text.index("x"), text.index("y") + 1, field="tool_calls.0.arguments"),
    ]
    arguments = redact([calling(text)], (), findings).messages[0]["tool_calls"][0]["function"]["arguments"]
    parsed = json.loads(arguments)
    assert parsed["card"] == "<CARD_1>"
    assert "x" not in parsed.values()
    assert "y" not in parsed.values()


@pytest.mark.parametrize(
    ("content", "redacted"),
    [
        ('{"card": 4111, "a": [4111]}', '{"card": "<CARD_1>", "a": ["<CARD_1>"]}'),
        ('{"card": 4111,', '{"card": <CARD_1>,'),
        ("[4111] is it", "[<CARD_1>] is it"),
    ],
)
def test_what_was_said_in_json_stays_json(content: str, redacted: str) -> None:
    findings = [found("card", place.start(), place.end()) for place in re.finditer("4111", content)]
    assert redact([said(content)], (), findings).messages[0]["content"] == redacted


def test_tool_definitions_are_redacted_and_stay_json() -> None:
    tools = ({"name": "mail a@b"},)
    redacted = redact([said("hi")], tools, [found("email", 15, 18, field="tools")])
    assert redacted.tools == [{"name": "mail <EMAIL_1>"}]


def test_documented_examples_hold() -> None:
    assert doctest.testmod(redaction).failed == 0


def test_names_and_ids_are_redacted_and_calls_stay_linked_to_their_answers() -> None:
    function = CalledFunction(name="a@b", arguments="{}")
    caller = said("", Call(id="c@d", type="function", function=function))
    answer = Turn(role="tool", content="ok", tool_calls=[], tool_call_id="c@d", name="a@b")
    findings = [
        found("email", 0, 3, field="tool_calls.0.id"),
        found("email", 0, 3, field="tool_calls.0.name"),
        found("email", 0, 3, index=1, field="name"),
        found("email", 0, 3, index=1, field="tool_call_id"),
    ]
    called, answered = redact([caller, answer], (), findings).messages
    assert called["tool_calls"][0]["id"] == answered["tool_call_id"] == "<EMAIL_1>"
    assert called["tool_calls"][0]["function"]["name"] == answered["name"] == "<EMAIL_2>"


@pytest.mark.parametrize(
    ("first", "second", "are_same"),
    [
        ("+1 (415) 555-2671", "+14155552671", True),
        ("4111-1111-1111-1111", "4111 1111 1111 1111", True),
        ("DE89 3704 0044 0532 0130 00", "de89370400440532013000", True),
        ("219-09-9999", "219099999", True),
        ("Ann@Example.org", "ann@example.org", True),
        ("10.11.12.13", "101.1.12.13", False),
        ("ann-b@example.org", "annb@example.org", False),
        ("hunter-2", "hunter2", False),
        ("1-12-1980", "11-2-1980", False),
        ("219-09-9999", "219-09-9998", False),
    ],
)
def test_a_number_has_one_placeholder_however_it_is_grouped(first: str, second: str, *, are_same: bool) -> None:
    text = f"{first}|{second}"
    findings = [found("card", 0, len(first)), found("card", len(first) + 1, len(text))]
    redacted = redact([said(text)], (), findings).messages[0]["content"]
    assert redacted == ("<CARD_1>|<CARD_1>" if are_same else "<CARD_1>|<CARD_2>")


def test_a_placeholder_that_is_there_already_stands_for_something_else() -> None:
    messages = [said("a@b"), said("<EMAIL_1> wrote to <EMAIL_3>"), said("c@d")]
    redacted = redact(messages, (), [found("email", 0, 3), found("email", 0, 3, index=2)]).messages
    assert [turn["content"] for turn in redacted] == ["<EMAIL_2>", "<EMAIL_1> wrote to <EMAIL_3>", "<EMAIL_4>"]
