"""Check digits of the numbers by which states know people.

Each takes the number as written, with any separators.

Where a number has letters, the rule's pattern has counted its signs.
"""

import re
from collections.abc import Sequence

from ctrainer.agents.compliance.detectors.checksums import digits_of, luhn_remainder

_SPANISH_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_ITALIAN_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_VERHOEFF_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _weighted(digits: Sequence[int], weights: Sequence[int]) -> int:
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=True))


def _digits(text: str, count: int) -> list[int]:
    """Return the digits of a text, or none when they are not as many as expected."""
    digits = digits_of(text)
    return digits if len(digits) == count else []


def _characters(text: str) -> str:
    return "".join(character for character in text.upper() if character.isalnum())


def german_tax_id(text: str) -> bool:
    """Return whether eleven digits are a Steuer-ID (ISO 7064 mod 11,10; one digit repeats in the first ten).

    >>> german_tax_id("86 095 742 719"), german_tax_id("86 095 742 718")
    (True, False)
    """
    digits = _digits(text, 11)
    if not any(digits[:1]) or len(set(digits[:10])) not in {8, 9}:
        return False
    product = 10
    for digit in digits[:10]:
        product = 2 * ((digit + product) % 10 or 10) % 11
    return (11 - product) % 10 == digits[10]


def french_social_security(text: str) -> bool:
    """Return whether thirteen signs and a key of two are a NIR (key = 97 - number mod 97; Corsica writes 2A, 2B).

    >>> french_social_security("2 55 08 14 168 025 38"), french_social_security("2 55 08 14 168 025 39")
    (True, False)
    """
    digits = "".join(map(str, _digits(text.upper().replace("2A", "19").replace("2B", "18"), 15)))
    return bool(digits) and 97 - int(digits[:13]) % 97 == int(digits[13:])


def spanish_identity(text: str) -> bool:
    """Return whether a DNI or NIE ends in its letter (number mod 23; X, Y, Z count as 0, 1, 2).

    >>> spanish_identity("12345678-Z"), spanish_identity("X1234567L"), spanish_identity("12345678A")
    (True, True, False)
    """
    characters = _characters(text)
    number = characters[:-1].translate(str.maketrans("XYZ", "012"))
    return number.isdecimal() and _SPANISH_LETTERS[int(number) % 23] == characters[-1]


def italian_fiscal_code(text: str) -> bool:
    """Return whether a codice fiscale of 16 signs ends in its check letter (DM 12/03/1974).

    >>> italian_fiscal_code("RSSMRA85T10A562S"), italian_fiscal_code("RSSMRA85T10A562T")
    (True, False)
    """
    ranks = [int(character) if character.isdecimal() else ord(character) - ord("A") for character in _characters(text)]
    return (sum(_ITALIAN_ODD[rank] for rank in ranks[:15:2]) + sum(ranks[1:15:2])) % 26 == ranks[15]


def dutch_citizen_number(text: str) -> bool:
    """Return whether nine digits pass the elfproef of a BSN.

    >>> dutch_citizen_number("111222333"), dutch_citizen_number("111222334")
    (True, False)
    """
    digits = _digits(text, 9)
    return any(digits) and _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def canadian_insurance_number(text: str) -> bool:
    """Return whether nine digits are a SIN (Luhn; the first digit is neither 0 nor 8).

    >>> canadian_insurance_number("130 692 544"), canadian_insurance_number("130 692 545")
    (True, False)
    """
    digits = _digits(text, 9)
    return any(digits) and digits[0] not in {0, 8} and luhn_remainder(digits) == 0


def australian_tax_number(text: str) -> bool:
    """Return whether nine digits are a TFN (weights 1 4 3 7 5 8 6 9 10, modulo 11).

    >>> australian_tax_number("123 456 782"), australian_tax_number("123 456 783")
    (True, False)
    """
    digits = _digits(text, 9)
    return any(digits) and _weighted(digits, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0


def indian_aadhaar(text: str) -> bool:
    """Return whether twelve digits that do not begin with 0 or 1 pass the Verhoeff test.

    >>> indian_aadhaar("2345 6789 0124"), indian_aadhaar("2345 6789 0125")
    (True, False)
    """
    digits = _digits(text, 12)
    return any(digits) and digits[0] > 1 and _verhoeff(digits) == 0


def _verhoeff(digits: Sequence[int]) -> int:
    """Return the Verhoeff sum: the product, in the dihedral group of the pentagon, of the permuted digits."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        permuted = digit
        for _ in range(place % 8):
            permuted = _VERHOEFF_PERMUTATION[permuted]
        total = _dihedral(total, permuted)
    return total


def _dihedral(left: int, right: int) -> int:
    """Return the product in the group of the pentagon: 0 to 4 are rotations, 5 to 9 reflections."""
    step = left - right if left >= 5 else left + right  # noqa: PLR2004 - the first reflection
    return step % 5 + 5 * (left // 5 != right // 5)


def brazilian_cpf(text: str) -> bool:
    """Return whether eleven digits, not all equal, end in the two check digits of a CPF.

    >>> brazilian_cpf("529.982.247-25"), brazilian_cpf("529.982.247-26")
    (True, False)
    """
    digits = _digits(text, 11)
    return len(set(digits)) > 1 and all(
        _weighted(digits[:n], range(n + 1, 1, -1)) * 10 % 11 % 10 == digits[n] for n in (9, 10)
    )


def british_health_number(text: str) -> bool:
    """Return whether ten digits are an NHS number (weights 10 to 2, modulo 11).

    >>> british_health_number("943 476 5919"), british_health_number("943 476 5918")
    (True, False)
    """
    digits = _digits(text, 10)
    return any(digits) and _weighted(digits, range(10, 0, -1)) % 11 == 0


def polish_pesel(text: str) -> bool:
    """Return whether eleven digits are a PESEL (weights 1 3 7 9, modulo 10).

    >>> polish_pesel("44051401359"), polish_pesel("44051401358")
    (True, False)
    """
    digits = _digits(text, 11)
    return any(digits) and _weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def chinese_resident(text: str) -> bool:
    """Return whether eighteen signs are a resident identity number (ISO 7064 mod 11-2).

    >>> chinese_resident("11010519491231002X"), chinese_resident("110105194912310021")
    (True, False)
    """
    characters = text.upper()
    values = [10 if character == "X" else int(character) for character in characters]
    return _weighted(values, [2**power % 11 for power in range(17, -1, -1)]) % 11 == 1


def singapore_identity(text: str) -> bool:
    """Return whether an NRIC or FIN ends in its letter (weights 2 7 6 5 4 3 2, modulo 11).

    >>> singapore_identity("S1234567D"), singapore_identity("S1234567A")
    (True, False)
    """
    text = text.upper()
    rest = _weighted(digits_of(text), (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(text[0], 0)
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "M": "KLJNPQRTUWX"}.get(text[0], "XWUTRQPNMLK")
    return letters[rest % 11] == text[-1]


def mexican_population_code(text: str) -> bool:
    """Return whether a CURP of 18 signs ends in its check digit.

    >>> mexican_population_code("HEGG560427MVZRRL04"), mexican_population_code("HEGG560427MVZRRL05")
    (True, False)
    """
    alphabet = "0123456789ABCDEFGHIJKLMNÑOPQRSTUVWXYZ"
    values = [alphabet.index(character) for character in text.upper()]
    return -_weighted(values[:17], range(18, 1, -1)) % 10 == values[17]


def vehicle(text: str) -> bool:
    """Return whether 17 signs are a vehicle identification number with its check digit (49 CFR 565).

    >>> vehicle("1M8GDM9AXKP042788"), vehicle("1M8GDM9A1KP042788")
    (True, False)
    """
    table = dict(zip("0123456789ABCDEFGHJKLMNPRSTUVWXYZ", "012345678912345678123457923456789", strict=True))
    values = [int(table[character]) for character in text.upper()]
    rest = _weighted(values, (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)) % 11
    return re.fullmatch("[0-9X]", text[8].upper()) is not None and "0123456789X"[rest] == text[8].upper()
