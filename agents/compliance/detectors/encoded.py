"""Text that hides behind base64, base32, hexadecimal, escapes or percent signs, decoded so that rules can read it.

What does not decode to text that can be read (hashes, images, identifiers) gives nothing. The work is linear in the
length of the text: a run is decoded in full only when its middle is readable.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import re2

TRIGGER = (
    r"[A-Za-z0-9+/_\-]{24}|%40|(?:%[0-9A-Fa-f]{2}[A-Za-z0-9_.~+\-]{0,8}){3}"
    r"|\\(?:x|u00)[0-9A-Fa-f]{2}\\(?:x|u00)[0-9A-Fa-f]{2}\\|(?:[2-7][0-9A-Fa-f][ :]){9}"
)
"""Where this pattern (RE2 and Hyperscan) does not hit, `decoded_views` yields nothing."""

MAXIMUM_DEPTH = 2
"""Layers of encoding that are taken off."""
MAXIMUM_CHARACTERS = 1 << 20
"""Decoded characters of one text; what comes after them is not decoded."""

_RUNS = (
    r"(?:[A-Za-z0-9+/]{60,76}\r?\n)+[A-Za-z0-9+/]{1,76}={0,2}"
    r"|(?:\\x[0-9A-Fa-f]{2}){6,}|(?:\\u00[0-9A-Fa-f]{2}){6,}|\b(?:[0-9A-Fa-f]{2}[ :]){9,}[0-9A-Fa-f]{2}\b"
    r"|[A-Za-z0-9+/_%.~\-]{24,}={0,6}|[A-Za-z0-9+/_.~\-]*%[A-Za-z0-9+/_%.~\-]*={0,2}"
)
"""What may be encoded: lines of base64, escapes, pairs of digits, a word that is long or has percent signs."""
_IN_TEXT, _IN_ASCII = re2.compile(_RUNS), re2.compile(_RUNS.encode())
"""RE2 passes over ordinary words ten times as fast as `re`, and gives the places in ASCII at once."""
_SHORTEST = 6
"""Characters of a word that is worth decoding."""
_BETWEEN_PAIRS = re.compile("[ :]")
_NOT_HEXADECIMAL = re.compile(r"\\x|\\u00")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_READABLE = 0.95
"""Share of bytes that belong to characters of UTF-8 other than controls. Random bytes have less than a half."""
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_WIDE = 3
"""One zero in so many bytes makes them UTF-16 rather than bytes of one each."""


class _Encoding(NamedTuple):
    """One way to write bytes. `unit` characters decode together; `sample` of them show 18 bytes."""

    pattern: re.Pattern[str]
    decode: Callable[[str], bytes]
    unit: int
    sample: int


def decoded_views(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield `(start, end, decoded)`: an encoded run of `text` with what it says, one layer after the other.

    >>> list(decoded_views("key: c2stcHJvai1hYmNkZWZnaGlqa2xtbm9w!"))
    [(5, 37, 'sk-proj-abcdefghijklmnop')]
    >>> list(decoded_views("5f1d7a84db00d2fce00b31a7fc73224f5f1d7a84db00d2fce00b31a7fc73224f"))
    []
    """
    budget = MAXIMUM_CHARACTERS
    for start, end, decoded in _layer(text):
        yield start, end, decoded
        budget -= len(decoded)
        for inner in _deeper(decoded):
            yield start, end, inner
            budget -= len(inner)
        if budget <= 0:
            return


def _deeper(text: str) -> Iterator[str]:
    layer = [text]
    for _ in range(MAXIMUM_DEPTH - 1):
        layer = [decoded for outer in layer for _, _, decoded in _layer(outer)]
        yield from layer


def _layer(text: str) -> Iterator[tuple[int, int, str]]:
    for start, end in _runs(text):
        run = text[start:end]
        for first, last, decoded in _decoder(run)(run):
            yield start + first, start + last, decoded


def _runs(text: str) -> Iterator[tuple[int, int]]:
    if text.isascii():
        found = _IN_ASCII.finditer(text.encode())
    else:
        found = _IN_TEXT.finditer(text.encode(errors="replace").decode())  # a lone surrogate is no UTF-8
    for run in found:
        yield run.span()


def _decoder(run: str) -> Callable[[str], Iterator[tuple[int, int, str]]]:
    if run.startswith("\\"):
        return _escaped
    if run[2:3] in {" ", ":"}:
        return _pairs
    return _lines if "\n" in run else _word


def _from_base64(run: str) -> bytes:
    return binascii.a2b_base64(run.encode().translate(_URL_SAFE))


def _from_base32(run: str) -> bytes:
    body = run.rstrip("=")
    # One, three or six signs over eight say nothing of a byte that fewer would not.
    body = body[:-1] if len(body) % 8 in {1, 3, 6} else body
    return base64.b32decode(body + "=" * (-len(body) % 8))


_BASE64 = _Encoding(re.compile(r"[A-Za-z0-9+/_\-]{24,}={0,2}"), _from_base64, unit=4, sample=24)
_BASE32 = _Encoding(re.compile(r"[A-Z2-7]{32,}={0,6}"), _from_base32, unit=8, sample=32)
_HEXADECIMAL = _Encoding(re.compile(r"[0-9A-Fa-f]{32,}"), binascii.unhexlify, unit=2, sample=36)


def _lines(run: str) -> Iterator[tuple[int, int, str]]:
    decoded = _text_in("".join(run.split()), _BASE64)
    if decoded is not None:
        yield 0, len(run), decoded


def _escaped(run: str) -> Iterator[tuple[int, int, str]]:
    data = binascii.unhexlify(_NOT_HEXADECIMAL.sub("", run))
    if _is_readable(data):
        yield 0, len(run), _narrow(data).decode(errors="replace")


def _pairs(run: str) -> Iterator[tuple[int, int, str]]:
    data = binascii.unhexlify(_BETWEEN_PAIRS.sub("", run))
    if _is_readable(data):
        yield 0, len(run), _narrow(data).decode(errors="replace")


def _word(run: str) -> Iterator[tuple[int, int, str]]:
    if "%" in run:
        if len(run.rstrip("=")) < _SHORTEST:
            return
        decoded = unquote_to_bytes(run)
        if len(decoded) < len(run):
            yield 0, len(run), decoded.decode(errors="replace")
        return
    for encoding in (_HEXADECIMAL, _BASE64, _BASE32):
        for part in encoding.pattern.finditer(run):
            decoded_part = _text_in(part.group(), encoding)
            if decoded_part is not None:
                yield *part.span(), decoded_part


def _text_in(run: str, encoding: _Encoding) -> str | None:
    """Return what a run says when its middle is text. Other signs may stand before it: every alignment is tried."""
    middle = max(0, len(run) - encoding.sample) // 2 // encoding.unit * encoding.unit
    for skipped in range(encoding.unit):
        first = middle + skipped
        if _is_readable(_decoded(run[first : first + encoding.sample], encoding)):
            return _narrow(_decoded(run[skipped:], encoding)).decode(errors="replace")
    return None


def _decoded(run: str, encoding: _Encoding) -> bytes:
    body = run.rstrip("=")
    rest = len(body) % encoding.unit
    # One sign over a multiple of the unit says nothing; two or three of base64 lack their padding.
    return encoding.decode(body[:-1] if rest == 1 else body + "=" * (encoding.unit - rest if rest else 0))


def _is_readable(data: bytes) -> bool:
    text = _CONTROLS.sub("", _narrow(data).decode(errors="ignore"))
    return bool(text) and len(text.encode()) >= _READABLE * len(_narrow(data))


def _narrow(data: bytes) -> bytes:
    """Return UTF-16 as bytes of one each, as shells of Windows encode their commands; anything else as it is."""
    return data.replace(b"\0", b"") if data.count(0) * _WIDE >= len(data) else data
