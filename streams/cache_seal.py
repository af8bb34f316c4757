"""Entries of a cache that others can write to: only what a holder of the secret put under a key is read there.

Whoever can write to Redis could otherwise let a sample pass, and so could a Redis that gives the value of another key.
"""

import logging
import os
import secrets
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from typing import Final

from ctrainer.streams.settings import Settings, SettingsError

SECRET_BYTES: Final = 32
_TAG_BYTES: Final = 32
_OWN_FILE = "verdicts.key"
_LOG = logging.getLogger(__name__)


class CacheSeal:
    """Seals values with a keyed BLAKE2b over key and value (RFC 7693). `name` tells secrets apart and betrays none."""

    def __init__(self, secret: bytes) -> None:
        self._secret = blake2b(secret, person=b"ctrainer-seal").digest()
        self.name = blake2b(secret, person=b"ctrainer-name", digest_size=6).hexdigest()

    def sealed(self, key: str, value: bytes) -> bytes:
        """Return what to keep under a key."""
        return self._tag(key, value) + value

    def opened(self, key: str, kept: object) -> bytes | None:
        """Return the value that was sealed for a key, or None where this is no such thing.

        >>> seal = CacheSeal(bytes(32))
        >>> kept = seal.sealed("a", b"1")
        >>> seal.opened("a", kept), seal.opened("b", kept), CacheSeal(bytes(33)).opened("a", kept)
        (b'1', None, None)
        """
        if not isinstance(kept, bytes):
            return None
        tag, value = kept[:_TAG_BYTES], kept[_TAG_BYTES:]
        return value if compare_digest(tag, self._tag(key, value)) else None

    def _tag(self, key: str, value: bytes) -> bytes:
        name = key.encode()
        return blake2b(len(name).to_bytes(8, "big") + name + value, key=self._secret, digest_size=_TAG_BYTES).digest()


def cache_seal(settings: Settings) -> CacheSeal:
    """Return the seal of the file that the settings name, else of one that is made in the state folder.

    Where none can be made there, this process shares nothing with others.

    Raises:
        SettingsError: the file that is named holds no secret.
    """
    if settings.cache_key_file is not None:
        return CacheSeal(_read(settings.cache_key_file))
    try:
        return CacheSeal(_own_secret(settings.state_folder / _OWN_FILE))
    except OSError as error:
        _LOG.warning("verdicts are not shared with other processes: %s", error)
        return CacheSeal(secrets.token_bytes(SECRET_BYTES))


def _read(path: Path) -> bytes:
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(f"CTRAINER_CACHE_KEY_FILE: {path}: {error}") from error
    if len(secret) < SECRET_BYTES:
        expected = f"expected at least {SECRET_BYTES}, as `openssl rand -hex {SECRET_BYTES}` writes"
        raise SettingsError(f"CTRAINER_CACHE_KEY_FILE: {path}: got {len(secret)} bytes, {expected}")
    return secret


def _own_secret(path: Path) -> bytes:
    """Return the secret in a file, which is made whole and once, whoever else makes it at the same time."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
        try:
            path.hardlink_to(new)
        except FileExistsError:
            pass
        finally:
            new.unlink()
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES:
        raise OSError(f"{path}: got {len(secret)} bytes, expected {SECRET_BYTES}; remove it, and another one is made")
    return secret
