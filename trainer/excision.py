"""Leaving out the sentences that a rule hits: the mildest revision, and one that needs no model."""

import re
from collections.abc import Sequence
from typing import NamedTuple

_SENTENCE = re.compile(r"\s*(?:[^.!?\n]|[.!?](?!\s|$|[\"'\u201d\u2019)]))*(?:[.!?]+[\"'\u201d\u2019)]*|\n+|$)")


class Place(NamedTuple):
    """Characters `[start, end)` of a text."""

    start: int
    end: int


def sentences(text: str) -> list[str]:
    """Return the sentences of a text.

    >>> sentences("It costs 1.50. You pay?")
    ['It costs 1.50.', 'You pay?']
    """
    return [found.strip() for found in _SENTENCE.findall(text) if found.strip()]


def without_sentences(text: str, places: Sequence[Place]) -> str:
    """Return a text without the sentences that have a letter of one of some places.

    >>> without_sentences("The parcel is late. You are an idiot! It comes at 10.30 on Monday.", [Place(20, 36)])
    'The parcel is late. It comes at 10.30 on Monday.'
    >>> without_sentences("You are an idiot", [Place(0, 16)])
    ''
    """
    kept = [
        match.group()
        for match in _SENTENCE.finditer(text)
        if not any(place.start < match.end() and match.start() < place.end for place in places)
    ]
    return "".join(kept).strip()
