"""Checks that tell a real number from a random one."""

import ipaddress
import re

_NO_DIGIT = re.compile("[^0-9]+")
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
"""The sum of the digits of twice each digit."""
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})"
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"
    r"|3[47]\d{13}"
    r"|3(?:0[0-59]|[689]\d)\d{11}"
    r"|(?:6011|64[4-9]\d|65\d{2}|62\d{2}|81\d{2}|60\d{2}|508\d)\d{12}"
    r"|35\d{14}|(?:2131|1800)\d{11}"
)
"""Visa, Mastercard, American Express, Diners, Discover with UnionPay and RuPay, JCB, each with its lengths."""

_PAIRS = re.compile("(?:[0-9A-Fa-f]{2}:){7}[0-9A-Fa-f]{2}")
_DOCUMENTATION = tuple(
    map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"))
)

_IBAN_COUNTRIES = re.compile(
    "A[DELTZ]|B[AEGHIRY]|C[HRYZ]|D[EJKO]|E[EGS]|F[IOR]|G[BEILRT]|H[RU]|I[ELQST]|JO|K[WZ]|L[BCITUVY]|M[CDEKNRTU]|N[ILO]|OM"
    "|P[KLST]|QA|R[OSU]|S[ACDEIKMOTV]|T[LNR]|UA|V[AG]|XK|YE",
    re.IGNORECASE,
)


def digits_of(text: str) -> list[int]:
    """Return the decimal digits of a text.

    >>> digits_of("943 476")
    [9, 4, 3, 4, 7, 6]
    """
    return list(map(int, _NO_DIGIT.sub("", text)))


def luhn(text: str) -> bool:
    """Return whether the 12 to 19 digits of a text pass the Luhn test (ISO/IEC 7812-1).

    >>> luhn("4111 1111 1111 1111"), luhn("4111 1111 1111 1112")
    (True, False)
    """
    digits = digits_of(text)
    return 12 <= len(digits) <= 19 and any(digits) and luhn_remainder(digits) == 0  # noqa: PLR2004 - ISO/IEC 7812-1


def luhn_remainder(digits: list[int]) -> int:
    """Return the Luhn sum of digits modulo 10, which is 0 when the last digit is right.

    >>> luhn_remainder([1, 8]), luhn_remainder([1, 9])
    (0, 1)
    """
    return (sum(digits[-1::-2]) + sum([_DOUBLED[digit] for digit in digits[-2::-2]])) % 10


def payment_card(text: str) -> bool:
    """Return whether a text is a card number on its own: right check digit, known issuer, the issuer's length.

    >>> payment_card("4111 1111 1111 1111"), payment_card("766625834409")
    (True, False)
    """
    return luhn(text) and _ISSUERS.fullmatch(_NO_DIGIT.sub("", text)) is not None


def mod97(text: str) -> bool:
    """Return whether an IBAN has the remainder 1 modulo 97 (ISO 13616-1).

    >>> mod97("GB82 WEST 1234 5698 7654 32"), mod97("GB82 WEST 1234 5698 7654 33")
    (True, False)
    """
    characters = "".join(character for character in text.upper() if character.isalnum())
    digits = "".join(str(int(character, 36)) for character in characters[4:] + characters[:4])
    return int(digits) % 97 == 1


def account_number(text: str) -> bool:
    """Return whether a text is an IBAN of a country that issues them, with the right remainder.

    >>> account_number("GB82WEST12345698765432"), account_number("XX00123456789")
    (True, False)
    """
    return _IBAN_COUNTRIES.match(text) is not None and mod97(text)


def routing_number(text: str) -> bool:
    """Return whether nine digits are a routing number of a US bank (ABA check digit).

    >>> routing_number("021000021"), routing_number("021000022")
    (True, False)
    """
    digits = digits_of(text)
    return sum(weight * digit for weight, digit in zip([3, 7, 1] * 3, digits, strict=True)) % 10 == 0


def social_security_number(text: str) -> bool:
    """Return whether a US social security number can have been issued (no 000, 666, 9xx; no zero group).

    >>> social_security_number("219-09-9999"), social_security_number("000-12-3456")
    (True, False)
    """
    digits = "".join(map(str, digits_of(text)))
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in {"000", "666"} and area[0] != "9" and group != "00" and serial != "0000"


def internet_address(text: str) -> bool:
    """Return whether a text is an IP address of either version that names one host.

    Those kept for documentation (RFC 5737, RFC 3849) are no host's; eight pairs are the beginning of a fingerprint.

    >>> internet_address("192.168.2.11"), internet_address("1.2.3.400"), internet_address("0.10.1.1")
    (True, False, False)
    >>> internet_address("203.0.113.7"), internet_address("2001:db8::1"), internet_address("5E:8F:16:06:2E:A3:CD:2C")
    (False, False, False)
    """
    if _PAIRS.fullmatch(text):
        return False
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    nobody = address.is_unspecified or address.is_loopback or address.is_multicast
    return not nobody and not text.startswith("0.") and not any(address in network for network in _DOCUMENTATION)
