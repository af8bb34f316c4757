"""Patterns with their digits taken away: what is left says whether one can hit where there is no digit."""

import re

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]", re.DOTALL)
"""An escape, or a class with all that is in it."""
_DIGITS = re.compile(r"\\d|\[[0-9](?:-[0-9]|[0-9])*\]")
_NOTHING = r"[^\x00-\xff]"


def without_digits(pattern: str) -> str:
    r"""Return the pattern with what nothing matches in place of each digit that it asks for.

    Where that can never match, every match of the pattern has a digit. Classes that hold more than digits stay as they
    are, and so do digits that stand for themselves: the pattern then matches no less than it could without digits.

    >>> without_digits(r"\bid \d{4}[1-9]"), without_digits(r"[^\d]\\d")
    ('\\bid [^\\x00-\\xff]{4}[^\\x00-\\xff]', '[^\\d]\\\\d')
    """
    return _TOKEN.sub(lambda token: _NOTHING if _DIGITS.fullmatch(token.group()) else token.group(), pattern)
