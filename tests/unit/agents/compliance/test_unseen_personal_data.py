"""How the patterns do on turns of another hand, which were written before the patterns were mended by them."""

import doctest
from pathlib import Path

import pytest

from benchmarks import labelled_turns
from benchmarks.unseen import PRINCIPLES, report
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution

FILES = sorted(Path(__file__).parent.glob("unseen_personal_data*.yaml"))
DETECTORS = Court(default_constitution()).detectors


def test_there_are_hundreds_of_turns_with_and_without_personal_data() -> None:
    turns = [turn for path in FILES for turn in labelled_turns.labelled_turns(path)]
    assert sum(bool(turn.spans) for turn in turns) > 600
    assert sum(not turn.spans for turn in turns) > 600
    assert not any(sign in turn.text for turn in turns for sign in "⟦⟧")


def test_a_turn_is_read_without_its_marks_and_always_the_same() -> None:
    assert doctest.testmod(labelled_turns).failed == 0
    written = "key ⟦github-token|ghp_{A36}⟧ of ⟦email|ann@a.example⟧"
    first, again = labelled_turns.labelled_turn(written), labelled_turns.labelled_turn(written)
    assert first == again
    assert [first.text[span.start : span.end][:4] for span in first.spans] == ["ghp_", "ann@"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_another_hand_wrote_is_found_and_ordinary_turns_are_left_alone(path: Path) -> None:
    measured = report(path, DETECTORS)
    assert measured["all"]["recall"] >= 0.98
    assert measured["all"]["precision"] >= 0.99
    assert measured["ordinary"]["alarmed"] <= 0.01 * measured["ordinary"]["turns"]
    for principle in PRINCIPLES:
        assert measured["principles"][principle]["recall"] >= 0.9, principle


def test_most_of_what_is_told_in_passing_is_found() -> None:
    measured = report(Path(__file__).with_name("unseen_insurance_and_university.yaml"), DETECTORS)
    assert measured["all"]["recall"] >= 0.9
    assert measured["all"]["alarms"] == 0
