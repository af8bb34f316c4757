"""How random a text looks: keys do, words and placeholders do not."""

import re
from collections import Counter
from itertools import pairwise
from math import log2

MINIMUM_BITS = 3.0
"""English words of secret length stay below; random tokens of 16 characters and more lie above."""

MINIMUM_DISTINCT = 4
"""Fewer different characters are a row of dots or stars."""

FEWEST_DIGITS = 2
"""The number of an identity card or passport has this many digits at least."""

LONGEST_COUNT = 7
"""Characters that follow each other as in `12345678` or `abcdefgh`: more than these and somebody typed an example."""


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
    return any(character.isdigit() for character in text) and _is_spread(text)


def token_looking(text: str) -> bool:
    """Return whether a text that has the form of a known kind of token is random: digits or both cases, no row.

    >>> token_looking("hf_xHSwDiySRzrjYZMybeAqji"), token_looking("hf_abcdefghijklmnopqrstuv")
    (True, False)
    """
    mixed = not text.islower() and not text.isupper()
    return (mixed or any(character.isdigit() for character in text)) and _is_spread(text)


def _is_spread(text: str) -> bool:
    return not _counts(text) and shannon_entropy(text) >= MINIMUM_BITS


def _counts(text: str) -> bool:
    """Return whether a text holds a row of neighbours of the character table.

    >>> _counts("sk-1234567890"), _counts("sk-1209387465")
    (True, False)
    """
    row = 1
    for first, second in pairwise(text):
        row = row + 1 if ord(second) - ord(first) == 1 else 1
        if row > LONGEST_COUNT:
            return True
    return False


def chosen_password(text: str) -> bool:
    """Return whether a value that stands after `password` or `api key` can be one: not a plain lower-case word.

    >>> chosen_password("hunter22"), chosen_password("Tr0ub4dor&3"), chosen_password("expired")
    (True, True, False)
    """
    return any(not character.islower() for character in text.rstrip(".!?:)")) and len(set(text)) >= MINIMUM_DISTINCT


def strong_password(text: str) -> bool:
    """Return whether a value that code gives to a password can be one: with a digit or a sign, as no name of code has.

    >>> strong_password("hunter22"), strong_password("Tr!ubador"), strong_password("user.newPassword)")
    (True, True, False)
    """
    value = text.rstrip(")]}:.")
    return chosen_password(value) and any(not letter.isalpha() and letter not in "._-" for letter in value)


def mixed_key(text: str) -> bool:
    """Return whether a text is random and mixes both cases and digits, as keys do and names of code do not.

    >>> mixed_key("f3A9x0QmZk27LbT1"), mixed_key("word_embeddings_v2"), mixed_key("9f86d081884c7d65")
    (True, False, False)
    """
    return not text.islower() and not text.isupper() and random_looking(text)


def document_number(text: str) -> bool:
    """Return whether a value that stands after `passport` or the like can be its number: two digits and more.

    >>> document_number("C4JXV7L1K"), document_number("RENEWAL"), document_number("AB 123456")
    (True, False, True)
    """
    return sum(character.isdigit() for character in text) >= FEWEST_DIGITS


def mingled_password(text: str) -> bool:
    """Return whether a value that only stands beside `password` can be one: letters and digits in it, or signs, too.

    >>> mingled_password("Regenbogen_19"), mingled_password("authentication"), mingled_password("12-characters")
    (True, False, False)
    """
    value = text.rstrip(".!?:)")
    has_digit = any(character.isdigit() for character in value)
    return strong_password(value) and has_digit and re.match(r"\d{1,3}[-+%]", value) is None
