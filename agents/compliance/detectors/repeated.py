"""Values that are said again where nothing tells what they are: a password in an answer, a number in a tool call."""

from collections.abc import Iterator

LEAST_CHARACTERS = 6
LEAST_DIGITS = 8
"""What has digits alone is a count or a year as often as not, if it is shorter."""
MOST_VALUES = 64
"""So many values of a sample are looked for again: each goes through all its texts."""


def forms(value: str) -> tuple[str, ...]:
    """Return how a value may be said again: as it was and, a number, without its signs; none if it is no rare sight.

    >>> forms("Harbour42!"), forms("12 34 56 78"), forms("secret"), forms("2024")
    (('Harbour42!',), ('12 34 56 78', '12345678'), (), ())
    """
    letters = sum(character.isalpha() for character in value)
    digits = "".join(character for character in value if character.isdecimal())
    if len(value) < LEAST_CHARACTERS or letters == len(value) or (not letters and len(digits) < LEAST_DIGITS):
        return ()
    return (value,) if letters or digits == value else (value, digits)


def places(text: str, form: str) -> Iterator[tuple[int, int]]:
    """Yield where a form stands in a text as a word of its own.

    >>> list(places("a1b2c3, xa1b2c3 (a1b2c3)", "a1b2c3"))
    [(0, 6), (17, 23)]
    """
    start = text.find(form)
    while start >= 0:
        end = start + len(form)
        if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum()):
            yield start, end
        start = text.find(form, end)
