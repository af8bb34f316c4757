"""The folder of a session: where it keeps its checkpoints, and the lock that one process at a time holds."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctrainer.streams.settings import Settings


def session_folders(settings: Settings) -> Path:
    """Return where the folders of all sessions are."""
    return settings.state_folder / "sessions"


def session_folder(settings: Settings, session_id: str) -> Path:
    """Return where a session keeps its checkpoints and its lock."""
    return session_folders(settings) / session_id


@contextmanager
def exclusive(folder: Path) -> Iterator[bool]:
    """Hold the lock of a session's folder; yields whether it was free. The kernel frees that of a killed process."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(descriptor)
