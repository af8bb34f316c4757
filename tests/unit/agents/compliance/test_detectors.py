import doctest
from types import ModuleType

import pytest

from ctrainer.agents.compliance import segments
from ctrainer.agents.compliance.conversation import Call, CalledFunction, Turn
from ctrainer.agents.compliance.detectors import checksums, entropy, telephone
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution

DETECTORS = Court(default_constitution()).detectors


def said(text: str, *calls: Call) -> Turn:
    return Turn(role="assistant", content=text, tool_calls=list(calls), tool_call_id=None, name=None)


def found(text: str) -> dict[str, str]:
    findings = DETECTORS.find([said(text)], ())
    return {finding.source.rule.id: text[finding.start : finding.end] for finding in findings}


@pytest.mark.parametrize("module", [checksums, entropy, telephone, segments])
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
        ("host 2001:db8:0:0:1:2:3:4 is down", "ipv6", "2001:db8:0:0:1:2:3:4"),
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
