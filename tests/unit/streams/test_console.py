import json

import pytest

from ctrainer.streams.console import Reporter, print_rows

ROWS: list[dict[str, object]] = [{"session": "a", "step": 1}, {"session": "b", "step": None}]


def test_rows_for_machines_are_one_json_object_per_line(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print_rows("sessions", ROWS, as_json=True)
    assert [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()] == ROWS


def test_rows_for_people_are_a_table_with_a_title(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows("sessions", ROWS, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "sessions"
    assert any("session" in line and "step" in line for line in lines)
    assert any("b" in line and "None" in line for line in lines)


@pytest.mark.parametrize("as_json", [True, False])
def test_no_rows_are_no_error(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> None:
    print_rows("sessions", [], as_json=as_json)
    assert ("nothing" in capsys.readouterr().out) is not as_json


def test_a_report_leaves_standard_output_to_data(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter() as reporter:
        reporter.say("judging")
        reporter.progress("judged", 3, 5)
        reporter.progress("judged", 5, 5)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "judging" in printed.err
    assert "5/5" in printed.err
