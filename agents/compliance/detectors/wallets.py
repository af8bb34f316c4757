"""Addresses of wallets carry a checksum of their own."""

import hashlib

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_CHECKSUM = 4
_PAYLOAD = 21
"""Bytes of the checksum, and of the version with the hash of the key (Bitcoin's Base58Check)."""


def base58_checked(text: str) -> bool:
    """Return whether a text is a Base58Check address: its last four bytes are the double SHA-256 of the rest.

    >>> base58_checked("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"), base58_checked("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb")
    (True, False)
    """
    number = 0
    for character in text:
        number = number * len(_ALPHABET) + _ALPHABET.index(character)
    if number.bit_length() > 8 * (_PAYLOAD + _CHECKSUM):
        return False
    data = number.to_bytes(_PAYLOAD + _CHECKSUM, "big")
    digest = hashlib.sha256(hashlib.sha256(data[:_PAYLOAD]).digest()).digest()
    return digest[:_CHECKSUM] == data[_PAYLOAD:]
