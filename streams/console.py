"""What a person or a pipe sees: tables and bars on a terminal, one JSON value per line for machines."""

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

_COMMANDING = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]")
"""In UTF-8: delete, the upper control characters, and marks of direction."""


class Reporter:
    """Announces and shows progress on standard error, so that standard output stays clean for data."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )

    def __enter__(self) -> Self:
        """Show the bars."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the bars as they are."""
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, highlight=False)

    def progress(self, label: str, done: int, total: int) -> None:
        """Move the bar of `label`."""
        if label not in self._bars:
            self._bars[label] = self._progress.add_task(label, total=total)
        self._progress.update(self._bars[label], completed=done, total=total)


def print_json(value: Any) -> None:
    """Print one JSON value on one line of standard output."""
    print_lines([orjson.dumps(value)])


def print_lines(values: Iterable[bytes]) -> None:
    """Print JSON values as they are, one a line of standard output. None of them can command a terminal."""
    for value in values:
        sys.stdout.buffer.write(spelled_out(value) + b"\n")
    sys.stdout.buffer.flush()


def spelled_out(json: bytes) -> bytes:
    r"""Return the same JSON value without letters that command a terminal or turn its text around.

    JSON itself writes out only those below a space.

    >>> spelled_out('"\x9b2J \u202e"'.encode())
    b'"\\u009b2J \\u202e"'
    """
    return _COMMANDING.sub(lambda found: b"\\u%04x" % ord(found.group().decode()), json)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on standard output. The first column is what people copy: it stays on one line."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(visible(str(value))) for value in row))
    Console().print(table)


def visible(text: str) -> str:
    r"""Return a text whose control and hidden characters are written out: none of them can command a terminal.

    >>> visible("a\x1b[2J b\u202ec")
    'a\\x1b[2J b\\u202ec'
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def print_rows(title: str, rows: Sequence[Mapping[str, object]], *, as_json: bool) -> None:
    """Print rows of equal keys: a table, or one JSON object per line."""
    if as_json:
        for row in rows:
            print_json(row)
        return
    columns = list(rows[0]) if rows else ["nothing"]
    print_table(title, columns, [list(row.values()) for row in rows])
