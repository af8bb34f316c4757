"""Telephone numbers, confirmed by Google's numbering plans (the `phonenumbers` package)."""

import re
from functools import lru_cache

import phonenumbers

TRUNK_REGIONS = ("GB", "DE", "FR")
"""Regions whose national notation begins with 0; beside them the North American one is understood."""
_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}")
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_SEPARATOR = re.compile(r"[-+(). ]")


@lru_cache(maxsize=4096)
def telephone(text: str) -> bool:
    """Return whether a text is a telephone number written as one: with a separator or a country code, and no date.

    >>> telephone("+49 30 901820"), telephone("(212) 555-0143"), telephone("2025-11-12"), telephone("2125550143")
    (True, True, False, False)
    """
    if not _SEPARATOR.search(text) or _DATE.match(text) or _ADDRESS.fullmatch(text):
        return False
    if text.startswith("+"):
        return _has_possible_length(text, None)
    if text.lstrip("(").startswith("0"):
        return any(_is_assigned(text, region) for region in TRUNK_REGIONS)
    return _has_possible_length(text, "US")


def _has_possible_length(text: str, region: str | None) -> bool:
    number = _parse(text, region)
    possible = phonenumbers.ValidationResult.IS_POSSIBLE
    return number is not None and phonenumbers.is_possible_number_with_reason(number) == possible


def _is_assigned(text: str, region: str) -> bool:
    number = _parse(text, region)
    return number is not None and phonenumbers.is_valid_number(number)


def _parse(text: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
