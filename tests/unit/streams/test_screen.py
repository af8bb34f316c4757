"""What a hostile or a careless user gives to `ctrainer screen` has an outcome for each line, and no traceback."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from ctrainer.agents.compliance.shape import MAX_RECORD_BYTES
from ctrainer.streams.cli import app

RECORD = {
    "timestamp": 1,
    "client_id": "shop",
    "workload_id": "desk",
    "request": {"messages": [{"role": "user", "content": "Where?"}]},
    "response": {"choices": [{"message": {"role": "assistant", "content": "Here."}}]},
}


def screened(folder: Path, data: bytes, *options: str) -> list[dict[str, Any]]:
    (folder / "lines").write_bytes(data)
    result = CliRunner().invoke(app, ["screen", str(folder / "lines"), "--json", *options])
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def outcomes(folder: Path, data: bytes, *options: str) -> list[str]:
    return [one.get("reason") or one["verdict"] for one in screened(folder, data, *options)]


def test_lines_are_judged_in_their_order_across_batches(tmp_path: Path) -> None:
    lines = [f"My SSN is 219-09-9999, said {number}" if number % 3 == 0 else f"Hello {number}" for number in range(600)]
    shown = screened(tmp_path, "\n".join(lines).encode(), "--show-text")
    assert [one["verdict"] for one in shown] == ["redact" if number % 3 == 0 else "accept" for number in range(600)]
    assert [one["messages"][0]["content"] for one in shown] == [
        line.replace("219-09-9999", "<SSN_1>") for line in lines
    ]


def test_each_decision_names_its_line_so_that_blank_ones_shift_none(tmp_path: Path) -> None:
    data = b"\n\nHello\n  \r\n{\nBye\n\n"
    assert [(one["line"], one["verdict"]) for one in screened(tmp_path, data)] == [
        (3, "accept"),
        (5, "dead-letter"),
        (6, "accept"),
    ]


def test_a_text_that_is_shown_is_the_same_and_commands_no_terminal(tmp_path: Path) -> None:
    text = "a\x9b2Jb \u202ec\u2066d\x7f\x1b[2J é"
    (tmp_path / "lines").write_text(text)
    told = CliRunner().invoke(app, ["screen", str(tmp_path / "lines"), "--text", "--json", "--show-text"])
    assert json.loads(told.stdout)["messages"][0]["content"] == text
    assert not set("\x9b\u202e\u2066\x7f\x1b") & set(told.stdout)
    assert "é" in told.stdout


def test_records_and_plain_texts_may_stand_beside_each_other(tmp_path: Path) -> None:
    data = json.dumps(RECORD).encode() + b"\r\n\n   \nHello\n" + json.dumps(RECORD).encode()
    assert [one["tenant"] for one in screened(tmp_path, data)] == ["shop", "", "shop"]


def test_a_plain_text_is_judged_as_strictly_as_a_request_unless_its_speaker_is_named(tmp_path: Path) -> None:
    text = b"How can I steal a car?"
    assert outcomes(tmp_path, text) == outcomes(tmp_path, text, "--role", "user") != ["accept"]
    assert outcomes(tmp_path, text, "--role", "assistant") == ["accept"]


def test_chats_are_judged_as_the_records_that_would_log_them(tmp_path: Path) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"to": "ann@example.org"}'}}
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Send it."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "ok"},
        {"role": "assistant", "content": "Sent."},
    ]
    chat = json.dumps({"messages": turns, "tools": [{"type": "function", "function": {"name": "f"}}], "id": 7}).encode()
    (shown,) = screened(tmp_path, chat, "--show-text")
    assert shown["verdict"] == "redact"
    assert [turn["role"] for turn in shown["messages"]] == [turn["role"] for turn in turns]
    assert json.loads(shown["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"to": "<EMAIL_1>"}


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ({"messages": []}, "missing-field"),
        ({"messages": "Hello"}, "missing-field"),
        ({"messages": [{"role": "assistant", "content": "Hello"}]}, "no-messages"),
        ({"messages": [{"role": "user", "content": "Hello"}] * 2}, "wrong-type"),
        ({"messages": [{"role": "user", "content": "Hello"}, 5]}, "wrong-type"),
        ({"messages": [{"role": "user", "content": "Hello"}], "response": {}}, "missing-field"),
        ({"messages": [{"role": "user", "content": "Hello"}] * 1_001 + [{"content": "Hi"}]}, "too-many-messages"),
    ],
)
def test_a_chat_that_is_none_is_told(tmp_path: Path, chat: dict[str, Any], reason: str) -> None:
    assert outcomes(tmp_path, json.dumps(chat).encode() + b"\nHello") == [reason, "accept"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b'{"messages": [NaN]}', ["missing-field"]),
        (b"\n\n \t\n", []),
        (b"\xff\xfe\nHello", ["not-utf8", "accept"]),
        (b"{\x00}\nHello", ["not-json", "accept"]),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, ["not-json"]),
        (b"Hello\x00there", ["accept"]),
        (b"\xef\xbb\xbf" + json.dumps(RECORD).encode(), ["accept"]),
        (b"\xef\xbb\xbf{}", ["missing-field"]),
        ("Hello".encode("utf-16"), ["not-utf8"]),
        (b"x" * MAX_RECORD_BYTES + b"\nHello", ["accept", "accept"]),
        (b"x" * (MAX_RECORD_BYTES + 1) + b"\nHello", ["record-too-large", "accept"]),
        (b"x" * (3 * MAX_RECORD_BYTES) + b"\nHello", ["record-too-large", "accept"]),
        (b"\xef\xbb\xbf{" + b" " * (3 * MAX_RECORD_BYTES) + b"\nHello", ["record-too-large", "accept"]),
    ],
)
def test_every_line_has_an_outcome(tmp_path: Path, data: bytes, expected: list[str]) -> None:
    assert outcomes(tmp_path, data) == expected


def test_a_text_field_that_is_none_is_told_line_by_line(tmp_path: Path) -> None:
    lines = b'{"t": 5}\n{"t": null}\n[]\n{"u": "x"}\n{"t": "Hello"}\n{"t": "\\ud800"}\nplain'
    assert outcomes(tmp_path, lines, "--text-field", "t") == [
        *["missing-field"] * 4,
        "accept",
        "not-json",
        "not-json",
    ]


def test_two_ways_to_read_a_line_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("Hello")
    result = CliRunner().invoke(app, ["screen", str(tmp_path / "lines"), "--text", "--text-field", "t"])
    assert result.exit_code == 2
    assert "choose one" in result.output


@pytest.mark.parametrize(
    ("redirected", "code", "told"),
    [
        ("<&-", 0, ""),
        ("<lines >&-", 0, ""),
        ("<lines >/dev/full", 1, "No space left on device"),
        ("<lines | head -c 1 >first", 0, ""),
    ],
)
def test_streams_that_are_closed_full_or_broken_give_no_traceback(
    tmp_path: Path, redirected: str, code: int, told: str
) -> None:
    (tmp_path / "lines").write_text("Hello\n" * 5_000)
    ours = f"{sys.executable} -m ctrainer.streams.cli screen --json"
    done = subprocess.run(  # noqa: S602 - the shell is what closes streams
        f"{ours} {redirected}", shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert told in done.stderr


INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["ctrainer", "screen", "--json"]
from ctrainer.streams.cli import main
main()
"""
"""Also where whoever runs the tests ignores interrupts."""


@pytest.mark.parametrize("waits", [True, False])
def test_one_interrupt_ends_it_while_it_waits_for_a_line_as_while_it_judges(tmp_path: Path, *, waits: bool) -> None:
    (tmp_path / "lines").write_bytes(b"Hello\n" * 400_000)
    with (
        (tmp_path / "lines").open("rb") as lines,
        subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE],
            stdin=subprocess.PIPE if waits else lines,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as ours,
    ):
        if ours.stdin is not None:
            ours.stdin.write(b"Hello\n" * 256)
            ours.stdin.flush()
        assert ours.stdout is not None
        assert ours.stdout.read(1), "ended before it decided anything"
        rest = Thread(target=ours.stdout.read)  # so that it goes on judging
        rest.start()
        ours.send_signal(signal.SIGINT)
        assert ours.wait(10) == 130
        rest.join()
        assert ours.stderr is not None
        assert b"Traceback" not in ours.stderr.read()


def test_a_fault_that_is_told_commands_no_terminal(tmp_path: Path) -> None:
    (tmp_path / "document.json").write_text('{"\\u001b[2Jboo": 1}')
    done = subprocess.run(
        [sys.executable, "-m", "ctrainer.streams.cli", "constitution", "check", str(tmp_path / "document.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert "\\x1b[2Jboo: Extra inputs" in done.stderr
