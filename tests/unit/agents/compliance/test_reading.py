"""What is escaped is read as what it says, and every span leads back to whole escapes."""

import doctest
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.detectors import reading as module
from ctrainer.agents.compliance.detectors.reading import reading

VALUES = st.text(alphabet='ab@."\\/u0046&#;\n\u00e9\u200b{}[]', max_size=60)


def test_documented_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r'{"url": "https:\/\/a.example\/?b\u003dc"}', '{"url": "https://a.example/?b=c"}'),
        (r'{"a": "first\nsecond\tthird"}', '{"a": "first\nsecond\tthird"}'),
        (r'{"path": "C:\\temp\\token"}', r'{"path": "C:\temp\token"}'),
        (r"['it\'s', '\d']", r"['it\'s', '\d']"),
        (r"say \u0061\u0040b", "say a@b"),
        ("mail ann&#64;example&#x2e;org", "mail ann@example.org"),
        ("ann&commat;example.org &amp; co", "ann@example.org &amp; co"),
        (r'{"html": "ann\u0026#64;example.org"}', '{"html": "ann@example.org"}'),
        (r"&#0;&#x110000;&#1;a C:\new", "\ufffd\ufffda C:\\new"),
        ("AT&T; R&#D", "AT&T; R&#D"),
        (r"C:\new\table costs nothing", r"C:\new\table costs nothing"),
    ],
)
def test_escapes_are_read_where_a_text_looks_like_json_or_spells_letters(text: str, read: str) -> None:
    assert reading(text).text == read


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_json_within_json_is_read_to_its_ground(depth: int) -> None:
    text = json.dumps({"password": "a/b\nc"})
    for _ in range(depth):
        text = json.dumps({"body": text})
    assert reading(text).text.endswith('{"password": "a/b\nc"}' + '"}' * depth)


@given(VALUES, st.data())
def test_a_span_leads_back_to_one_that_cuts_no_escape(value: str, data: st.DataObject) -> None:
    text = json.dumps([value])
    read = reading(text)
    start = data.draw(st.integers(0, len(read.text) - 1))
    first, last = read.original(start, data.draw(st.integers(start + 1, len(read.text))))
    assert 0 <= first < last <= len(text)
    if first >= 2 and last <= len(text) - 2:
        json.loads(text[:first] + "_" + text[last:])
