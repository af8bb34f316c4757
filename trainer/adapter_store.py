"""Trained adapters on disk: each whole or absent, in a folder named after its content, never changed afterwards."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrainer.trainer.adapter import folder_digest, save_adapter
from ctrainer.trainer.durability import sync, sync_all

_PARTIAL = ".partial-"
_NAME_LENGTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAdapter:
    """A folder that plain peft loads, and the digest over its files."""

    folder: Path
    digest: str


def store_adapter(model: Any, place: Path) -> StoredAdapter:
    """Save the adapter of a model into a folder below `place`, durably; no other process may do so at the same time.

    What was stored there before stays as it was, so that a reader never sees half of one adapter and half of another.
    What an earlier call left unfinished is removed.
    """
    place.mkdir(parents=True, exist_ok=True)
    for left in place.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left)
    partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=place))
    digest = save_adapter(model, partial)
    sync_all(partial)
    folder = place / digest.removeprefix("sha256:")[:_NAME_LENGTH]
    if folder.exists() and folder_digest(folder) == digest:
        shutil.rmtree(partial)
        return StoredAdapter(folder=folder, digest=digest)
    if folder.exists():
        # Somebody harmed it: its name says so.
        folder.rename(place / f"{_PARTIAL}harmed-{folder.name}")
    partial.rename(folder)
    sync(place)
    return StoredAdapter(folder=folder, digest=digest)
