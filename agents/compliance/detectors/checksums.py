"""Checks that tell a real number from a random one."""

import ipaddress


def luhn(text: str) -> bool:
    """Return whether the 12 to 19 digits of a text pass the Luhn test (ISO/IEC 7812-1).

    >>> luhn("4111 1111 1111 1111"), luhn("4111 1111 1111 1112")
    (True, False)
    """
    digits = [int(character) for character in text if character.isdigit()]
    if not 12 <= len(digits) <= 19 or not any(digits):  # noqa: PLR2004 - the lengths of ISO/IEC 7812-1
        return False
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def mod97(text: str) -> bool:
    """Return whether an IBAN has the remainder 1 modulo 97 (ISO 13616-1).

    >>> mod97("GB82 WEST 1234 5698 7654 32"), mod97("GB82 WEST 1234 5698 7654 33")
    (True, False)
    """
    characters = "".join(character for character in text.upper() if character.isalnum())
    digits = "".join(str(int(character, 36)) for character in characters[4:] + characters[:4])
    return int(digits) % 97 == 1


def social_security_number(text: str) -> bool:
    """Return whether a US social security number can have been issued (no 000, 666, 9xx; no zero group).

    >>> social_security_number("219-09-9999"), social_security_number("000-12-3456")
    (True, False)
    """
    digits = "".join(character for character in text if character.isdigit())
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in {"000", "666"} and area[0] != "9" and group != "00" and serial != "0000"


def internet_address(text: str) -> bool:
    """Return whether a text is an IP address of either version that names one host.

    >>> internet_address("192.168.2.11"), internet_address("1.2.3.400"), internet_address("2001:db8::1")
    (True, False, True)
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback or address.is_multicast)


def telephone_length(text: str) -> bool:
    """Return whether a text has as many digits as a telephone number can have (ITU-T E.164: at most 15).

    >>> telephone_length("9472 7916"), telephone_length("12-34")
    (True, False)
    """
    return 7 <= sum(character.isdigit() for character in text) <= 15  # noqa: PLR2004 - the lengths of E.164
