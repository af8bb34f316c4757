"""A text as rules read it: escapes read, hidden characters and look-alikes seen through, with the way back."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ctrainer.agents.compliance.detectors.backwards import both_ways
from ctrainer.agents.compliance.detectors.normalization import original_span

_ESCAPE = re.compile(r"""\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))""")
_SIGNS = {"b": " ", "f": " ", "n": "\n", "r": "\n", "t": "\t"}
_ESCAPED_QUOTE = '\\"'
MOST_LAYERS = 8
"""JSON within JSON that is read; each layer doubles the backslashes, so that nobody writes many."""


class Reading(NamedTuple):
    """The text, and the place of each of its characters, and of its end, in the original; None where they are equal."""

    text: str
    places: Sequence[int] | None

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of the original text that a span, not empty, stands for."""
        return original_span(self.places, start, end)


def reading(text: str) -> Reading:
    r"""Return how rules read a text.

    >>> reading('{"to": "ann\\u0040example.org"}').text
    '{"to": "ann@example.org"}'
    >>> reading("p\u0430ss")
    Reading(text='pass', places=None)
    """
    if not has_escapes(text):
        return Reading(*both_ways(text))
    plain, outer = unescaped(text)
    seen, inner = both_ways(plain)
    return Reading(seen, outer if inner is None else [outer[place] for place in inner])


def has_escapes(text: str) -> bool:
    r"""Return whether a text looks like JSON that has escapes, or holds letters that are written as `\u00..`."""
    return "\\" in text and (text.lstrip().startswith(("{", "[")) or "\\u00" in text)


def unescaped(text: str) -> tuple[str, list[int]]:
    """Return the text with JSON's escapes read, also those of JSON within its strings, and the places."""
    places = list(range(len(text) + 1))
    for _ in range(MOST_LAYERS):
        is_nested = _ESCAPED_QUOTE in text
        text, inner = _layer(text)
        places = [places[place] for place in inner]
        if not is_nested or "\\" not in text:
            break
    return text, places


def _layer(text: str) -> tuple[str, list[int]]:
    pieces: list[str] = []
    places: list[int] = []
    done = 0
    for escape in _ESCAPE.finditer(text):
        pieces += [text[done : escape.start()], _sign(escape)]
        places += range(done, escape.start() + 1)
        done = escape.end()
    return "".join([*pieces, text[done:]]), [*places, *range(done, len(text) + 1)]


def _sign(escape: re.Match[str]) -> str:
    code, letter = escape.groups()
    return chr(int(code, 16)) if code else _SIGNS.get(letter, letter)
