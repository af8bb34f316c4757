"""How random a text looks: keys do, words and placeholders do not."""

from collections import Counter
from math import log2

MINIMUM_BITS = 3.0
"""English words of secret length stay below; random tokens of 16 characters and more lie above."""

MINIMUM_DISTINCT = 4
"""Fewer different characters are a row of dots or stars."""


def shannon_entropy(text: str) -> float:
    """Return the entropy of a text's characters, in bits per character (Shannon 1948).

    >>> shannon_entropy("aaaa"), shannon_entropy("abcd")
    (0.0, 2.0)
    """
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * log2(share) for share in shares) + 0.0


def random_looking(text: str) -> bool:
    """Return whether a text is random enough to be a key, and holds a digit as keys do.

    >>> random_looking("f3A9x0QmZk27LbT1"), random_looking("assessment-of-the-portfolio")
    (True, False)
    """
    return any(character.isdigit() for character in text) and shannon_entropy(text) >= MINIMUM_BITS


def chosen_password(text: str) -> bool:
    """Return whether a value that stands after `password` or `api key` can be one: not a plain lower-case word.

    >>> chosen_password("hunter22"), chosen_password("Tr0ub4dor&3"), chosen_password("expired")
    (True, True, False)
    """
    return any(not character.islower() for character in text.rstrip(".!?:)")) and len(set(text)) >= MINIMUM_DISTINCT
