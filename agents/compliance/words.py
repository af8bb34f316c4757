"""The words of many texts as numbers: one pass of array operations finds, lower-cases and names them all.

A word is a run of ASCII letters and digits and of other characters that are no punctuation. Its key has 64 bits: equal
words have equal keys. Two different words share one only by chance, or where they differ after the first 24 bytes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctrainer.agents.compliance.detectors.normalization import normalized, undisguised_all

Keys = NDArray[np.uint64]
LETTERS = bytes(
    byte | 32
    if 65 <= byte <= 90  # noqa: PLR2004 - ASCII capitals
    else byte
    if (chr(byte).isascii() and chr(byte).isalnum()) or byte > 127  # noqa: PLR2004 - ASCII ends there
    else 0
    for byte in range(256)
)
"""Byte to byte: ASCII letters to lower case, other ASCII that is no digit to nothing, the rest as it is."""
_LATIN_SIGNS = 0xC2
"""The first byte of U+0080 to U+00BF."""
_OF_THREE = 0xE3
"""The first byte of U+2000 to U+3FFF, but for its last bit."""
_PAYLOAD, _LEADING = 0x3F, 0x0F
"""The bits of a byte of UTF-8 that belong to the character, and those of the first of three."""
_SIGNS = np.array([0x2000, 0x2070, 0x3000, 0x3040])
"""Where runs of signs begin and end."""
NO_PAIR = np.uint64(0)
_EIGHT = 8
_LONGEST = 24
"""So many bytes of a word are looked at, and its length up to `_MOST_BYTES`."""
_MOST_BYTES = 63
_PADDING = bytes(_LONGEST + _EIGHT)
_LENGTHS = np.arange(_MOST_BYTES + 1)
_PARTS = tuple(
    np.array([(1 << _EIGHT * int(kept)) - 1 for kept in np.clip(_LENGTHS - start, 0, _EIGHT)], np.uint64)
    for start in range(0, _LONGEST, _EIGHT)
)
"""For each eight bytes of a word, by its length: the mask of those that belong to it."""
_FIRST, _SECOND, _THIRD, _LENGTH, _LAST = (
    np.uint64(odd)
    for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 0xD6E8FEB86659FD93)
)
"""Odd numbers with their bits well spread, as in xxHash and splitmix64."""
_FOLD = np.uint64(29)


class Words(NamedTuple):
    """The keys of the words of texts, one text after the other. Text n has those of `bounds[n]` to `bounds[n + 1]`."""

    keys: Keys
    bounds: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many words each text has."""
        return np.diff(self.bounds)

    def sums(self, values: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the sum of the values of each text's words."""
        running = np.zeros(len(values) + 1, np.int64)
        np.cumsum(values, dtype=np.int64, out=running[1:])
        return running[self.bounds[1:]] - running[self.bounds[:-1]]

    def pairs(self, gap: int) -> Keys:
        """Return a key for each word and the one `gap` words on, `NO_PAIR` where that is of another text."""
        keys = pair_keys(self.keys[:-gap], self.keys[gap:], gap)
        across = (self.bounds[1:-1, None] - np.arange(1, gap + 1)).ravel()
        keys[across[(across >= 0) & (across < len(keys))]] = NO_PAIR
        return keys


def pair_keys(first: Keys, second: Keys, gap: int) -> Keys:
    """Return the keys of pairs of words that stand `gap` words apart."""
    keys: Keys = first * (_LAST + np.uint64(2 * gap)) + second
    return keys


def words_of(texts: Sequence[str], known: Sequence[bytes | None] | None = None) -> Words:
    """Return the words of texts. `known` gives the UTF-8 of those that are known to have no disguises.

    >>> words_of(["Don't PANIC, reader: 42!", "", "panic"]).bounds.tolist()
    [0, 5, 5, 6]
    >>> keys = words_of(["PANIC!", "panic", "a pan"]).keys
    >>> bool(keys[0] == keys[1]), bool(keys[0] == keys[3])
    (True, False)
    """
    encoded = _encoded(texts) if known is None else _completed(texts, known)
    together = bytearray(b"\0").join((b"", *encoded, _PADDING)).translate(LETTERS)
    letters = np.frombuffer(together, np.uint8)
    if not together.isascii():
        _blank_punctuation(letters)
    inside = letters != 0
    edges = (inside[1:] ^ inside[:-1]).nonzero()[0] + 1
    starts, ends = edges[::2], edges[1::2]
    places = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1, out=places[1:])
    return Words(_keys(together, starts, np.minimum(ends - starts, _MOST_BYTES)), np.searchsorted(starts, places))


def bytes_of(text: str) -> bytes:
    """Return a text without disguises in UTF-8, with zero bytes for each separator that is not ASCII."""
    encoded = bytearray(_encoded([text])[0])
    _blank_punctuation(np.frombuffer(encoded, np.uint8))
    return bytes(encoded)


def _encoded(texts: Sequence[str]) -> list[bytes]:
    """Return texts without disguises in UTF-8."""
    return [
        normalized(text)[0].encode("utf-8", "replace") if data is None else data
        for text, data in zip(texts, undisguised_all(texts), strict=True)
    ]


def _completed(texts: Sequence[str], known: Sequence[bytes | None]) -> Sequence[bytes]:
    """Return `known` with the texts that it lacks."""
    encoded = [data for data in known if data is not None]
    if len(encoded) == len(known):
        return encoded
    lacking = iter(_encoded([text for text, data in zip(texts, known, strict=True) if data is None]))
    return [next(lacking) if data is None else data for data in known]


def _blank_punctuation(letters: NDArray[np.uint8]) -> None:
    """Blank what separates words outside of ASCII: among others curly quotes, dashes, the ellipsis and all spaces."""
    two, three = np.flatnonzero(letters == _LATIN_SIGNS), np.flatnonzero((letters | 1) == _OF_THREE)
    first, second, third = (letters[three + place].astype(np.int64) & _PAYLOAD for place in range(3))
    code = (first & _LEADING) << 12 | second << 6 | third
    three = three[np.searchsorted(_SIGNS, code, side="right") % 2 == 1]
    for places in (two, two + 1, three, three + 1, three + 2):
        letters[places] = 0


def _keys(together: bytearray, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Keys:
    """Return the keys of words: most are at most eight bytes long, which are read as one number."""
    eights: Keys = np.ndarray((len(together) - _EIGHT + 1,), "<u8", together, strides=(1,))
    keys: Keys = (eights[starts] & _PARTS[0][lengths]) * _FIRST
    long = np.flatnonzero(lengths > _EIGHT)
    if len(long):
        length, after = lengths[long], starts[long] + _EIGHT
        second = (eights[after] & _PARTS[1][length]) * _SECOND
        third = (eights[after + _EIGHT] & _PARTS[2][length]) * _THIRD
        keys[long] ^= second + third + length.astype(np.uint64) * _LENGTH
    keys ^= keys >> _FOLD
    keys *= _LAST
    return keys
