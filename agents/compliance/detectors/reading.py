"""A text as rules read it: escapes read, hidden characters and look-alikes seen through, with the way back."""

import html
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ctrainer.agents.compliance.detectors.backwards import both_ways
from ctrainer.agents.compliance.detectors.normalization import original_span

_ESCAPE = re.compile(r"""\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))""")
_LETTER = re.compile(r"\\u[0-9a-fA-F]{4}")
_SIGNS = {"b": " ", "f": " ", "n": "\n", "r": "\n", "t": "\t"}
_REFERENCE = re.compile(r"&(?:#[xX][0-9a-fA-F]{1,6}|#[0-9]{1,7}|commat|period);")
"""A character as HTML numbers it, and those that hide mail addresses from readers of web pages."""
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
    plain, places = _spelt_out(text)
    seen, back = both_ways(plain)
    return Reading(seen, places if back is None else through(places, back))


def spelt_out(text: str) -> str:
    """Return a text with its escapes read, but disguised as it is."""
    return _spelt_out(text)[0]


def has_escapes(text: str) -> bool:
    r"""Return whether a text looks like JSON with escapes, or holds letters as `\u....` or as HTML refers to them."""
    return _is_json_like(text) or _has_references(text)


def _spelt_out(text: str) -> tuple[str, Sequence[int] | None]:
    plain, places = unescaped(text) if _is_json_like(text) else (text, None)
    if _has_references(plain):
        plain, inner = _layer(plain, _REFERENCE, _referred)
        places = through(places, inner)
    return plain, places


def _is_json_like(text: str) -> bool:
    return "\\" in text and (text.lstrip().startswith(("{", "[")) or _LETTER.search(text) is not None)


def _has_references(text: str) -> bool:
    return "&#" in text or "&commat;" in text


def through(outer: Sequence[int] | None, inner: Sequence[int]) -> list[int]:
    """Return the places in the original of places in what was read of it."""
    return list(inner) if outer is None else [outer[place] for place in inner]


def unescaped(text: str) -> tuple[str, list[int]]:
    """Return the text with JSON's escapes read, also those of JSON within its strings, and the places."""
    places = list(range(len(text) + 1))
    for _ in range(MOST_LAYERS):
        is_nested = _ESCAPED_QUOTE in text
        text, inner = _layer(text, _ESCAPE, _escaped)
        places = through(places, inner)
        if not is_nested or "\\" not in text:
            break
    return text, places


def _layer(text: str, form: re.Pattern[str], sign: Callable[[re.Match[str]], str]) -> tuple[str, list[int]]:
    pieces: list[str] = []
    places: list[int] = []
    done = 0
    for escape in form.finditer(text):
        said = sign(escape)
        pieces += [text[done : escape.start()], said]
        places += [*range(done, escape.start()), *[escape.start()] * len(said)]
        done = escape.end()
    return "".join([*pieces, text[done:]]), [*places, *range(done, len(text) + 1)]


def _escaped(escape: re.Match[str]) -> str:
    code, letter = escape.groups()
    return chr(int(code, 16)) if code else _SIGNS.get(letter, letter)


def _referred(reference: re.Match[str]) -> str:
    return html.unescape(reference.group())
