import doctest

import pytest

from ctrainer.streams import console
from ctrainer.streams.console import print_rows


def test_documented_examples_hold() -> None:
    assert doctest.testmod(console).failed == 0


@pytest.mark.parametrize(
    "text", ["[/]", "[bold red]loud[/bold red]", "[link=file:///etc]x", "\x1b[2J\x1b]0;owned\x07", "\u202e"]
)
def test_what_a_sample_says_is_shown_as_it_is_and_commands_nothing(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_rows("in review", [{"sample": "1", "text": text}], as_json=False)
    shown = capsys.readouterr().out
    assert console.visible(text) in shown
    assert "\x1b]" not in shown
    assert "\u202e" not in shown


def test_an_id_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    long_id = "2a7f6c9d-0bf8-5541-8b08-97d19a21dc51"
    print_rows("in review", [{"sample": long_id, **dict.fromkeys("abcdef", "words " * 20)}], as_json=False)
    assert long_id in capsys.readouterr().out
