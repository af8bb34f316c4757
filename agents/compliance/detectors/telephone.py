"""Telephone numbers, confirmed by Google's numbering plans (the `phonenumbers` package)."""

import re
from functools import lru_cache
from typing import Any

import phonenumbers
import re2
from phonenumbers import PhoneMetadata

TRUNK_REGIONS = (
    "GB", "DE", "FR", "BE", "NL", "AU", "IT", "CH", "AT", "SE", "FI", "NZ", "IE", "ZA", "IN", "JP", "KR", "BR", "TR",
    "UA", "RO", "IL", "EG", "CN", "TW", "TH", "PH", "MY", "ID", "AR",
)  # fmt: skip
"""Regions whose national notation begins with 0, those with more calls on English text first."""
_YEAR = r"(?:1[5-9]|20)\d{2}"
_DATE = re.compile(rf"(?:{_YEAR}[-./ ]\d{{1,2}}[-./ ]\d{{1,2}}|\d{{1,2}}[-./ ]\d{{1,2}}[-./ ]{_YEAR})(?: \d{{1,4}})?")
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_YEARS = re.compile(r"(?:1[5-9]|20)\d{2} ?[-/] ?(?:1[5-9]|20)\d{2}(?: \d{1,4})?")
_ROUND = re.compile(r"\d{1,3}(?:[ .]\d{3})*[ .]000")
_SOCIAL_SECURITY = re.compile(r"\d{3}[- ]\d{2}[- ]\d{4}")
_PAIRS = re.compile(r"\d{2}(?: \d{2}){5,}")
_FRACTION = re.compile(r"[1-9]\d{0,2}\.\d{5,}")
_OTHERS = (_DATE, _ADDRESS, _YEARS, _ROUND, _SOCIAL_SECURITY, _PAIRS, _FRACTION)
"""What is no telephone number: also six pairs of digits and more, as bytes and draws are written."""
_SEPARATOR = re.compile(r"[-+(). /]")
_EXTENSION = re.compile(r"\s*(?:x|#|ext\.?|extension)\s*\d+$", re.IGNORECASE)
_FEWEST, _MOST = 6, 15
"""The digits of a number: six is the least that plans use locally, fifteen the most (ITU-T E.164)."""
_FEWEST_WITH_TRUNK = 9
"""Shorter rows of groups that begin with 0 are as often house numbers or codes."""


@lru_cache(maxsize=4096)
def telephone(text: str) -> bool:
    """Return whether a text is a number written with a country code or a trunk zero, in groups, and no date.

    >>> telephone("+49 30 901820"), telephone("0494 92 82 32"), telephone("2025-11-12"), telephone("0 12 13")
    (True, True, False, False)
    """
    text = _EXTENSION.sub("", text)
    if not _SEPARATOR.search(text) or _is_something_else(text):
        return False
    if text.lstrip("(").startswith("+"):
        return _has_possible_length(text)
    if text.startswith("00"):
        return _has_possible_length(f"+{text[2:]}")
    return _digits(text) >= _FEWEST_WITH_TRUNK and _plans().fullmatch(re.sub(r"\D", "", text)) is not None


@lru_cache(maxsize=4096)
def named_telephone(text: str) -> bool:
    """Return whether a text that stands beside a word such as `phone` can be a number: no date, no round count.

    >>> named_telephone("9472 7916"), named_telephone("12-34"), named_telephone("2 000 000")
    (True, False, False)
    """
    text = _EXTENSION.sub("", text)
    return _FEWEST <= _digits(text) <= _MOST and not _is_something_else(text)


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)


def _is_something_else(text: str) -> bool:
    return any(pattern.fullmatch(text) for pattern in _OTHERS)


def _has_possible_length(text: str) -> bool:
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE


@lru_cache(maxsize=1)
def _plans() -> Any:
    """Return the national numbers of all regions with a trunk zero as one automaton: a text may hold thousands."""
    return re2.compile("|".join(map(_plan, TRUNK_REGIONS)))


def _plan(region: str) -> str:
    metadata: Any = PhoneMetadata.metadata_for_region(region)  # there is one for each of the regions above
    number = metadata.general_desc.national_number_pattern
    return f"(?:{metadata.national_prefix or ''}(?:{number}))"
