import doctest

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.detectors import digits
from ctrainer.agents.compliance.detectors.detection import patterns_of
from ctrainer.agents.compliance.detectors.digits import without_digits
from ctrainer.agents.compliance.detectors.patterns import Pattern, PatternScanner, fault_of_pattern
from ctrainer.agents.compliance.loading import default_constitution

PACKAGED = patterns_of(default_constitution())


def test_documented_examples_hold() -> None:
    assert doctest.testmod(digits).failed == 0


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"x\d?y", "xy"),
        (r"x\d{0,3}y", "xy"),
        (r"x(?:\d+|none)", "xnone"),
        (r"x[^\d]y", "x-y"),
        (r"x[\d-]y", "x-y"),
        (r"x[]\d]y", "x]y"),
        (r"x[^]\d]y", "x-y"),
        (r"x[\]\d]y", "x]y"),
        (r"x[[:alpha:]\d]y", "xay"),
        (r"x\\dy", r"x\dy"),
        (r"x\\\\dy", r"x\\dy"),
        (r"x\[\d*\]y", "x[]y"),
        (r"x\Dy", "x-y"),
        ("x[0-9]?y", "xy"),
    ],
)
def test_a_pattern_that_can_do_without_a_digit_is_found_without_one(pattern: str, text: str) -> None:
    assert PatternScanner([Pattern(text=pattern), Pattern(text="z")]).candidates(text.encode()) == {0}


def test_what_needs_a_digit_is_found_with_its_digits_and_beside_what_does_not() -> None:
    scanner = PatternScanner([Pattern(text=r"id \d{3}"), Pattern(text="id"), Pattern(text=r"\d")])
    assert scanner.candidates(b"id 123") == {0, 1, 2}
    assert scanner.candidates(b"id 12x") == {1, 2}
    assert scanner.candidates(b"id") == {1}


def test_a_scanner_of_nothing_but_digits_or_of_none_finds_them() -> None:
    assert PatternScanner([Pattern(text=r"\d\d")]).candidates(b"42") == {0}
    assert PatternScanner([Pattern(text="four")]).candidates(b"four 2") == {0}


def _needs_digit(pattern: Pattern) -> bool:
    fault = fault_of_pattern(without_digits(pattern.text), ignore_case=pattern.ignore_case)
    return "never match" in (fault or "")


NEEDING = [pattern for pattern in PACKAGED if _needs_digit(pattern)]


def test_a_quarter_of_the_packaged_patterns_need_a_digit() -> None:
    assert len(NEEDING) * 4 >= len(PACKAGED)


@given(
    st.sampled_from(NEEDING).flatmap(
        lambda one: st.tuples(st.just(one), st.from_regex(one.text.replace("(?m:", "(?:")))
    )
)
def test_no_match_of_theirs_is_without_a_digit(drawn: tuple[Pattern, str]) -> None:
    pattern, text = drawn
    options = re2.Options()
    options.case_sensitive = not pattern.ignore_case
    bare = "".join("x" if character.isdecimal() else character for character in text)
    assert re2.search(pattern.text, bare, options) is None
