"""`ctrainer screen`: try a constitution on one's own data, without Kafka."""

import asyncio
import signal
import sys
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO

import orjson
import typer

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.compliance.shape import MAX_RECORD_BYTES
from ctrainer.agents.trial import Text, Trial, record
from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.console import print_lines
from ctrainer.streams.guard.guards import connect_guard, guard_model, guard_of
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.settings import Settings

LINES_AT_ONCE = 256
BYTES_AT_ONCE = 4 * 1024 * 1024


class Speaker(StrEnum):
    """Whose turn a plain text is taken for."""

    ASSISTANT = "assistant"
    USER = "user"
    TOOL = "tool"


def screen(
    file: Annotated[
        Path | None, typer.Argument(exists=True, dir_okay=False, help="one sample a line; standard input without it")
    ] = None,
    *,
    text: Annotated[bool, typer.Option("--text", help="each line is a plain text")] = False,
    text_field: Annotated[str | None, typer.Option(help="each line is a JSON object with its text here")] = None,
    role: Annotated[
        Speaker, typer.Option(help="whose turn a text is: an answer needs more evidence of harm")
    ] = Speaker.USER,
    show_text: Annotated[bool, typer.Option("--show-text", help="also print the text as it may go on")] = False,
    json: Annotated[bool, typer.Option("--json", help="only JSON: no summary on standard error")] = False,
) -> None:
    """Judge flywheel records, chats or plain texts: one JSON decision a line, in input order.

    Each decision names its `line`, from 1 on; blank ones have none. A line that begins with { is a flywheel record
    or a chat ({"messages": [...]}, the answer last), any other a plain text, unless an option says what all lines
    are. A text is taken for a request, which the harm score judges more strictly than an answer; rules for answers
    alone look at it with --role assistant.
    """
    if text and text_field:
        raise typer.BadParameter("--text takes each line as it is, --text-field takes it from JSON: choose one")
    settings = Settings.read()
    constitution, connection = read_constitution(settings), connect_guard(settings)
    court = Court(constitution, guard=guard_of(constitution, settings, guard_model(settings, connection)))
    engine = RegorusEngine(bundle_of(constitution))
    plain = Text(role=role.value, field=text_field)
    read = plain if text or text_field else lambda line: record(line) if line.lstrip()[:1] == b"{" else plain(line)
    trial = Trial(court=court, verdicts=court.verdicts(engine), read=read, show_text=show_text)
    with _interrupts(), file.open("rb") if file else sys.stdin.buffer as lines:
        counts = asyncio.run(_print_decisions(trial, lines, connection))
    if not json:
        typer.echo(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "nothing", err=True)


@contextmanager
def _interrupts() -> Iterator[None]:
    """Let an interrupt end this command at once. asyncio would keep it for the next time that anything is awaited."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


async def _print_decisions(trial: Trial, lines: BinaryIO, connection: EngineConnection | None) -> Counter[str]:
    async with AsyncExitStack() as stack:
        if connection is not None:
            stack.push_async_callback(connection.close)
        return await _decisions(trial, lines)


async def _decisions(trial: Trial, lines: BinaryIO) -> Counter[str]:
    counts: Counter[str] = Counter()
    for chunk in _chunks(lines):
        decisions = await trial.of([line for _, line in chunk])
        counts.update(decision["verdict"] for decision in decisions)
        numbered = ({"line": number, **decision} for (number, _), decision in zip(chunk, decisions, strict=True))
        print_lines(map(orjson.dumps, numbered))
    return counts


def _chunks(lines: BinaryIO) -> Iterator[list[tuple[int, bytes]]]:
    """Yield lines that are not blank with their numbers from 1 on, some at a time."""
    chunk: list[tuple[int, bytes]] = []
    size = 0
    for number, line in enumerate(_lines(lines), start=1):
        if not line.strip():
            continue
        chunk.append((number, line))
        size += len(line)
        if len(chunk) == LINES_AT_ONCE or size >= BYTES_AT_ONCE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield lines without the mark that some programs put before the first one.

    Of a line that is longer than any record may be, only as much is kept as shows that.
    """
    longest = len(BOM_UTF8) + MAX_RECORD_BYTES + len(b"\r\n") + 1
    for number, line in enumerate(iter(partial(file.readline, longest), b"")):
        rest = line
        while len(rest) == longest and not rest.endswith(b"\n"):
            rest = file.readline(longest)
        yield line if number else line.removeprefix(BOM_UTF8)
