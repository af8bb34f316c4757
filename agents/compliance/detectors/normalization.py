"""Text as rules can read it: without hidden characters and look-alikes, with the way back to the original.

What is changed, and nothing else: format characters, variation selectors and combining marks go; characters whose
compatibility form (Unicode Standard Annex 15, NFKC) is ASCII, digits of any script, odd spaces and dashes, and tag
characters become ASCII; Cyrillic, Greek and Armenian look-alikes of Latin letters become those letters, but only in
words that hold Latin letters as well; lone surrogates, which JSON can carry, become U+FFFD. Text that runs backwards
under a bidirectional override loses the override and keeps its order; `backwards` has it as it is seen.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

import re2

from ctrainer.agents.compliance.detectors.together import hit_texts

_DASHES = "\u2010\u2011\u2012\u2013\u2212\ufe58\ufe63\uff0d"
_EXTRA = {
    **dict.fromkeys(_DASHES, "-"),
    **dict.fromkeys("\u2028\u2029\u0085", "\n"),
    **dict.fromkeys("\u3002\uff61\u06d4", "."),
    **dict.fromkeys("\u2044\u2215", "/"),
    "\u2236": ":",
    "\ufe6b": "@",
}
_INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0"
_HIDING = (
    range(0x00AD, 0x00AE),
    range(0x0300, 0x0370),  # combining marks, as they are struck through digits
    range(0x0483, 0x048A),
    range(0x1AB0, 0x1B00),
    range(0x1DC0, 0x1E00),
    range(0x20D0, 0x2100),
    range(0xFE00, 0xFE10),  # variation selectors
    range(0xFE20, 0xFE30),
    range(0xE0000, 0xE0020),
    range(0xE007F, 0xE0200),
)
_TAGS = range(0xE0020, 0xE007F)
_FOLDED = (range(0xA0, 0x3400), range(0xA600, 0xAC00), range(0xFB00, 0x10000), range(0x10400, 0x1FC00))
"""Blocks that hold compatibility forms of ASCII, digits, spaces or format characters; ideographs have none."""
_KEPT = frozenset("\u2026\u2025")
"""Ellipses stay: they are frequent, and no rule looks for dots in a row."""

_LOOK_ALIKES = str.maketrans(
    "аеорсухіјѕԁԛԝһӏкмтвпАВЕКМНОРСТУХЅІЈҮԌԚԜαοερικνυτχϲϳΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹօսհոցԼՕՏɑɡıƖ",
    "aeopcyxijsdqwhlkmtbnABEKMHOPCTYXSIJYGQWaoepikvutxcjABEZHIKMNOPTYXCouhngLOSagiI",
)
_SURROGATES = "\ud800-\udfff"


def _ascii_of(character: str) -> str | None:
    """Return what stands for a character in ASCII, the empty text for nothing, or None when it is left alone."""
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    if category == "Zs":
        return " "
    if category == "Nd":
        return str(unicodedata.decimal(character))
    compatible = unicodedata.normalize("NFKC", character)
    return compatible.strip() or None if compatible.isascii() and character not in _KEPT else None


def _table() -> dict[str, str]:
    folded = ((chr(code), _ascii_of(chr(code))) for block in _FOLDED for code in block)
    table = {character: ascii_text for character, ascii_text in folded if ascii_text is not None}
    table |= {chr(code): "" for block in _HIDING for code in block} | dict.fromkeys(_INVISIBLE, "")
    return table | {chr(code): chr(code - _TAGS.start + ord(" ")) for code in _TAGS} | _EXTRA


def _ranges(characters: Iterable[str]) -> str:
    """Return characters as the inside of a character class, neighbours joined."""
    pieces: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if pieces and pieces[-1][1] == code - 1:
            pieces[-1][1] = code
        else:
            pieces.append([code, code])
    return "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in pieces)


_ASCII = _table()
_UNUSUAL = re.compile(f"(?![\0-\x7f])[{_ranges(_ASCII)}{_SURROGATES}]+")
"""`re` tries one range after the other. ASCII has none of these: to say so first is five times as fast on most text."""
_OF_EMOJI = "\u200d\ufe0e\ufe0f"
"""Joiners and presentation selectors are in nearly every emoji; they hide something only behind ASCII."""
_LOOK_ALIKE = f"[{_ranges(map(chr, _LOOK_ALIKES))}]"
_MIXED = f"[A-Za-z0-9_]{_LOOK_ALIKE}|{_LOOK_ALIKE}[A-Za-z0-9_]"
_DISGUISED = re2.compile(f"[{_ranges(set(_ASCII) - set(_OF_EMOJI))}]|[!-~][{_OF_EMOJI}]|{_MIXED}".encode())
_MIXES = re2.compile(_MIXED.encode())
"""Whether there is anything to change. RE2 reads bytes ten times as fast as `re` reads characters."""
_WORD = re.compile(r"\w+")
_LATIN = re.compile("[A-Za-z]")


def normalized(text: str) -> tuple[str, Sequence[int] | None]:
    r"""Return the text as rules read it, and for each of its characters (and its end) the place in `text`.

    The places are None where they are the same. ASCII text is returned as it is, at once.

    >>> normalized("p\u0430ss\u200bword"), normalized("\uff11\uff12")
    (('password', [0, 1, 2, 3, 5, 6, 7, 8, 9]), ('12', None))
    """
    if not is_disguised(text):
        return text, None
    plain, places = _without_disguise(text)
    return _WORD.sub(_word_in_latin, plain) if _MIXES.search(plain.encode()) else plain, places


def original_span(places: Sequence[int] | None, start: int, end: int) -> tuple[int, int]:
    r"""Return the span of the original text that a span of the normalised text, not empty, stands for.

    Hidden characters within the span, and those that follow it at once, belong to it. Where places go back, as in text
    that is read backwards, the span is the one between them.

    >>> original_span(normalized("a 4\u200b1\u0336 b")[1], 2, 4)
    (2, 6)
    """
    if places is None:
        return start, end
    first, last = places[start], places[end - 1]
    return (last, first + 1) if last < first else (first, max(places[end], last + 1))


def is_disguised(text: str) -> bool:
    """Return whether there is anything in a text that `normalized` would change."""
    return undisguised(text) is None


def undisguised(text: str) -> bytes | None:
    r"""Return a text in UTF-8, or None where `normalized` would change it.

    >>> undisguised("pass"), undisguised("p\u0430ss")
    (b'pass', None)
    """
    if text.isascii():
        return text.encode()
    try:
        data = text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return None if _DISGUISED.search(data) else data


def undisguised_all(texts: Sequence[str]) -> list[bytes | None]:
    r"""Return `undisguised` of each text, by one search through all of them.

    >>> undisguised_all(["p\u00e4ss", "p\u0430ss", "pass"])
    [b'p\xc3\xa4ss', None, b'pass']
    """
    try:
        found: list[bytes | None] = [text.encode() for text in texts]
    except UnicodeEncodeError:  # a lone surrogate
        return [undisguised(text) for text in texts]
    for number in disguised(found):
        found[number] = None
    return found


def disguised(texts: Sequence[bytes | None]) -> list[int]:
    """Return the numbers of the texts (UTF-8) that `normalized` would change, by one search through all of them."""
    unusual = [(number, data) for number, data in enumerate(texts) if data is not None and not data.isascii()]
    return [unusual[place][0] for place in hit_texts(_DISGUISED, [data for _, data in unusual])]


def _without_disguise(text: str) -> tuple[str, list[int] | None]:
    runs = [
        (run.start(), [_ASCII.get(character, "\ufffd") for character in run.group()]) for run in _UNUSUAL.finditer(text)
    ]
    pieces: list[str] = []
    done = 0
    for start, plain in runs:
        pieces += [text[done:start], *plain]
        done = start + len(plain)
    pieces.append(text[done:])
    moves = any(len(characters) != 1 for _, plain in runs for characters in plain)
    return "".join(pieces), _places(runs, len(text)) if moves else None


def _places(runs: Sequence[tuple[int, Sequence[str]]], length: int) -> list[int]:
    """Return the place in the original text of each character of the plain one, and of its end."""
    places: list[int] = []
    done = 0
    for start, plain in runs:
        places.extend(range(done, start))
        for place, characters in enumerate(plain, start):
            places.extend([place] * len(characters))
        done = start + len(plain)
    places.extend(range(done, length + 1))
    return places


def _word_in_latin(word: re.Match[str]) -> str:
    whole = word.group()
    return whole.translate(_LOOK_ALIKES) if not whole.isascii() and _LATIN.search(whole) else whole
