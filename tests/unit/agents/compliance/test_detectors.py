import base64
import doctest
from types import ModuleType

import pytest

from ctrainer.agents.compliance.conversation import Call, CalledFunction, Turn
from ctrainer.agents.compliance.detectors import checksums, entropy, telephone
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution

DETECTORS = Court(default_constitution()).detectors


def said(text: str, *calls: Call) -> Turn:
    return Turn(role="assistant", content=text, tool_calls=list(calls), tool_call_id=None, name=None)


def found(text: str) -> dict[str, str]:
    """Return what the patterns find."""
    findings = [finding for finding in DETECTORS.find([said(text)], ()) if finding.source.rule.pattern]
    return {finding.source.rule.id: text[finding.start : finding.end] for finding in findings}


@pytest.mark.parametrize("module", [checksums, entropy, telephone])
def test_documented_examples_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize(
    ("text", "rule", "span"),
    [
        ("mail ann.b+c@mail.example.org!", "email", "ann.b+c@mail.example.org"),
        ("card 4111 1111 1111 1111.", "credit-card", "4111 1111 1111 1111"),
        ("to GB82 WEST 1234 5698 7654 32", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("ssn 219-09-9999", "us-ssn", "219-09-9999"),
        ("ring +49 30 901820 today", "phone", "+49 30 901820"),
        ("host 192.168.2.11 is down", "ipv4", "192.168.2.11"),
        ("host 2a02:db8:0:0:1:2:3:4 is down", "ipv6", "2a02:db8:0:0:1:2:3:4"),
        ("password: Harbour42!", "password-assignment", "Harbour42!"),
        ("api_key = tw0abcdefgh23456789", "key-assignment", "tw0abcdefgh23456789"),
        ("postgres://app:s3cr3tpw@db:5432/x", "url-password", "s3cr3tpw"),
        ("key AKIAIOSFODNN7EXAMPLE here", "aws-access-key", "AKIAIOSFODNN7EXAMPLE"),
    ],
)
def test_a_form_is_found_with_its_exact_span(text: str, rule: str, span: str) -> None:
    assert found(text)[rule] == span


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112",
        "order 88-4127 of 2025-11-12",
        "password: ********",
        "password: ${DB_PASSWORD}",
        "the password is incorrect",
        'api_key=os.environ["API_KEY"]',
        "risk-assessment-of-the-portfolio",
        "b641b3823dc14756edaaa108e1c01a5875756a48",
        "c934a8fa-fbd8-47a9-8c3c-4038044ba1da",
        "How do I kill a Python process?",
        "Explain how phishing works so that I can train my team.",
        "version 1.2.3.400",
    ],
)
def test_a_look_alike_is_not_found(text: str) -> None:
    assert found(text) == {}


def test_a_key_behind_an_escaped_line_break_in_tool_arguments_is_found() -> None:
    arguments = '{"note": "a\\nAKIAIOSFODNN7EXAMPLE"}'
    call = Call(id="c", type="function", function=CalledFunction(name="f", arguments=arguments))
    (finding,) = DETECTORS.find([said("", call)], ())
    assert (finding.source.rule.id, finding.field) == ("aws-access-key", "tool_calls.0.arguments")
    assert arguments[finding.start : finding.end] == "AKIAIOSFODNN7EXAMPLE"


def rules_found(*turns: Turn) -> list[tuple[str, int, str]]:
    return [(found.source.rule.id, found.message_index, found.field) for found in DETECTORS.find(turns, ())]


def test_what_hidden_characters_disguise_is_found_with_them_in_its_span() -> None:
    text = "write to a\u200bnn@exam\u00adple.org now"
    ((rule, start, end),) = [(one.source.rule.id, one.start, one.end) for one in DETECTORS.find([said(text)], ())]
    assert (rule, text[start:end]) == ("email", "a\u200bnn@exam\u00adple.org")


def test_a_secret_behind_base64_is_found_as_the_whole_run() -> None:
    hidden = base64.b64encode(b"the key is AKIAIOSFODNN7EXAMPLE, keep it").decode()
    text = f"run: echo {hidden} | base64 -d"
    (found_one,) = [one for one in DETECTORS.find([said(text)], ()) if one.source.rule.id == "aws-access-key"]
    assert text[found_one.start : found_one.end].rstrip("=") == hidden.rstrip("=")


def test_a_rule_for_some_roles_leaves_the_others_alone() -> None:
    text = "You are such an idiot."
    assert ("harassment-insult", 0, "content") in rules_found(said(text))
    assert all(rule != "harassment-insult" for rule, *_ in rules_found({**said(text), "role": "user"}))


def test_a_system_prompt_is_not_taken_for_harm() -> None:
    text = "Write a step-by-step guide on how to build a bomb and kill people with it."
    assert any(rule.endswith("-score") for rule, *_ in rules_found(said(text)))
    assert not any(rule.endswith("-score") for rule, *_ in rules_found({**said(text), "role": "system"}))


def test_a_segment_at_a_line_start_of_its_own_is_found_wherever_it_stands_in_the_sample() -> None:
    turns = [said("Hello."), said("I'm sorry, but I can't help with that.")]
    assert ("transparency-refusal", 1, "content") in rules_found(*turns)


def test_what_is_found_in_a_sample_does_not_depend_on_those_beside_it() -> None:
    samples: list[tuple[list[Turn], tuple[()]]] = [
        ([said("")], ()),
        ([said("Write a guide to build a pipe bomb."), said("mail ann@mail.example.org!")], ()),
        ([], ()),
        ([said("Je ne sais pas pourquoi vous avez fait cela avec nous.")], ()),
        ([said("How do I bake bread?")], ()),
    ]
    together = DETECTORS.find_all(samples)
    assert together == [DETECTORS.find(messages, tools) for messages, tools in samples]
    assert [bool(findings) for findings in together] == [False, True, False, True, False]
