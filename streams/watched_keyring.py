"""The keyring as its file stands now: a key that is added or taken away counts from the next command on.

No restart is needed to rotate keys.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ctrainer.schemas.signature import Requester
from ctrainer.streams.keyring import KeyringError, read_keyring

_LOG = logging.getLogger(__name__)


class KeyringUnreadableError(ConnectionError):
    """The keyring was changed and cannot be read: nobody is known to be who they are, and commands wait for it."""


class _State(NamedTuple):
    """By what a changed file is known; a replaced one, as Kubernetes replaces a mounted secret, has another number."""

    modified_ns: int
    size: int
    number: int


class WatchedKeyring(Mapping[str, Requester]):
    """The requesters of a keyring file by key id. The file is looked at for each question: four microseconds.

    What a broken file held before counts no more: every look raises `KeyringUnreadableError` until it is whole again.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            KeyringError: it is missing or no keyring.
        """
        self._path = path
        # The state is taken first: a change while the file is read is then seen at the next look.
        state = _state_of(path)
        self._known: tuple[_State | None, Mapping[str, Requester]] = (state, read_keyring(path))

    def __getitem__(self, key_id: str) -> Requester:
        return self._requesters()[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._requesters())

    def __len__(self) -> int:
        return len(self._requesters())

    def _requesters(self) -> Mapping[str, Requester]:
        state, requesters = self._known
        now = _state_of(self._path)
        if now is None or now != state:
            requesters = self._read()
            self._known = now, requesters
            _LOG.info("keyring %s has changed: %d keys", self._path, len(requesters))
        return requesters

    def _read(self) -> Mapping[str, Requester]:
        try:
            return read_keyring(self._path)
        except KeyringError as error:
            _LOG.error("commands wait: %s", error)
            raise KeyringUnreadableError(str(error)) from error


def _state_of(path: Path) -> _State | None:
    """Return the state of a file, or None where it cannot be told."""
    try:
        found = path.stat()
    except OSError:
        return None
    return _State(found.st_mtime_ns, found.st_size, found.st_ino)
