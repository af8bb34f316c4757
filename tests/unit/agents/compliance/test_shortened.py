import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.agents.compliance.detectors import shortened as module
from ctrainer.agents.compliance.detectors.detection import patterns_of
from ctrainer.agents.compliance.detectors.patterns import Pattern, PatternScanner, are_in_dialect
from ctrainer.agents.compliance.detectors.shortened import shortened
from ctrainer.agents.compliance.loading import default_constitution

PACKAGED = patterns_of(default_constitution())
CUT = [pattern for pattern in PACKAGED if shortened(pattern.text) != pattern.text]


def test_documented_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("pattern", "short"),
    [
        (r"(?:ab){3}c", "(?:ab){2}"),
        (r"(?:ab){2}c", "(?:ab){2}c"),
        (r"(?:ab){3,}c", "(?:ab){3,}c"),
        (r"x(?:a|(?:bc){4}d)e", "x(?:a|(?:bc){2})"),
        (r"Xx\WY?[A-Z]\pN(?:ab){3}", r"[A-Z]x\W[A-Z]?[A-Z]\pN(?:ab){2}"),
        (r"(?i)B(?:ab){3}", "(?i)[A-Z](?:ab){2}"),
        (r"(?P<One>B(?:ab){3})", "(?P<One>[A-Z](?:ab){2})"),
        (r"(?m:^|[^\w\]])(?:ab){3}", "(?:ab){2}"),
        (r"(?m:^|[^\w\]])(?:ab){2}", r"(?m:^|[^\w\]])(?:ab){2}"),
        (r"a(?:b )*c(?:d )*e", "a(?:b )*c(?:d )*e"),
        (r"a(?:b )*(?:c)(?:d )*e", "a(?:b )*(?:c)"),
        (r"a(?:b )*(?:c)?(?:d )*e", "a(?:b )*(?:c)?(?:d )*e"),
        (r"\(?:ab\){3}c[)(](?:z)", r"\(?:ab\){3}c[)(](?:z)"),
    ],
)
def test_only_what_follows_a_long_repeat_or_a_second_gap_is_cut(pattern: str, short: str) -> None:
    assert shortened(pattern) == short


@given(st.sampled_from(CUT).flatmap(lambda one: st.tuples(st.just(one), st.from_regex(one.text))))
def test_the_short_form_of_a_packaged_pattern_hits_wherever_the_pattern_does(drawn: tuple[Pattern, str]) -> None:
    pattern, text = drawn
    assert re.search(shortened(pattern.text), text, re.IGNORECASE if pattern.ignore_case else re.NOFLAG)


def test_what_only_the_short_form_hits_is_a_candidate_without_a_span() -> None:
    scanner = PatternScanner([Pattern(text=r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b")])
    for text, spans in (("at ab:cd:ef", []), ("at ab:cd:ef:01:02:03", [(3, 20)])):
        assert scanner.candidates(text.encode()) == {0}
        assert list(scanner.spans(0, text, text.encode())) == spans


def test_a_pattern_whose_short_form_would_say_nothing_is_looked_for_whole() -> None:
    scanner = PatternScanner([Pattern(text="(?:a?){3}b")])
    assert (scanner.candidates(b"b"), scanner.candidates(b"a")) == ({0}, set())


def test_a_pattern_that_hyperscan_refuses_behind_the_cut_is_not_in_the_dialect() -> None:
    assert are_in_dialect([Pattern(text=r"(?:ab){3}c")])
    assert not are_in_dialect([Pattern(text=r"(?:ab){3}c\A")])
