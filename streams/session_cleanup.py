"""Removes what ended and forgotten sessions left: checkpoints, quarantined adapters, half-written files."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctrainer.agents.sessions import Session, Sessions
from ctrainer.schemas.identity import event_id
from ctrainer.streams.session_folder import exclusive, session_folders
from ctrainer.streams.settings import Settings
from ctrainer.trainer.abandoned import Leftover, Owner, Retention, abandoned


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was removed, or would be."""

    path: Path
    bytes: int


def clean(
    settings: Settings, sessions: Sessions, retention: Retention, *, now: float | None = None, dry_run: bool = False
) -> list[Removed]:
    """Remove what is abandoned, and return it; `sessions` must be the whole table.

    A session's folder goes only while its lock is held here, so never under a process that uses it.
    """
    clock = time.time() if now is None else now
    found = abandoned(leftovers(settings, sessions, clock), retention)
    removed = [Removed(path=leftover.path, bytes=_size(leftover.path)) for leftover in found]
    return removed if dry_run else [gone for gone in removed if _remove(gone.path, settings)]


def leftovers(settings: Settings, sessions: Sessions, now: float) -> Iterator[Leftover]:
    """Yield every folder of a session, every quarantined adapter, and what was left half written."""
    for folder in _folders(session_folders(settings)):
        owner = _owner(sessions.by_id.get(folder.name))
        yield Leftover(path=folder, owner=owner, idle_seconds=now - _changed(folder))
    owners = {event_id(f"sessions/{name}", "adapter"): _owner(session) for name, session in sessions.by_id.items()}
    adapters = settings.state_folder / "adapters"
    for folder in _folders(adapters / "quarantine"):
        owner = owners.get(folder.name, Owner.UNKNOWN)
        yield Leftover(path=folder, owner=owner, idle_seconds=now - _changed(folder), quarantined=True)
    for folder in _folders(adapters):
        for partial in _folders(folder):
            if partial.name.startswith(".partial-"):
                owner = owners.get(folder.name, Owner.UNKNOWN)
                yield Leftover(path=partial, owner=owner, idle_seconds=now - _changed(partial))


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.glob("*") if path.is_dir() and not path.is_symlink()]


def _owner(session: Session | None) -> Owner:
    if session is None:
        return Owner.UNKNOWN
    if session.is_final:
        return Owner.ENDED
    return Owner.ACTIVE if session.assignment is not None else Owner.UNKNOWN


def _changed(folder: Path) -> float:
    """Return when anything in a folder last changed, in seconds since the epoch; just now, where it is changing."""
    try:
        return max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return float("inf")


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _remove(folder: Path, settings: Settings) -> bool:
    if folder.parent != session_folders(settings):
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    with exclusive(folder) as free:
        if free:
            shutil.rmtree(folder, ignore_errors=True)
    return free and not folder.exists()
