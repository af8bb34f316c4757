"""Checkpoints of one session: folders that are whole or absent, and say themselves whether they are unharmed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctrainer.trainer.errors import CorruptCheckpointError

_MANIFEST = "manifest.json"
_PREFIX = "step-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What was saved at one step: files by name."""

    step: int
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The newest unharmed checkpoint, if any, and the steps of the newer ones that are corrupt."""

    checkpoint: Checkpoint | None
    corrupt: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The checkpoints below one folder; the newest `keep` stay."""

    folder: Path
    keep: int = 2

    def save(self, step: int, files: Mapping[str, bytes]) -> Path:
        """Save a checkpoint durably: after this returns it survives a power cut, before it does not exist."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self.folder))
        manifest = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        for name, content in {**files, _MANIFEST: json.dumps(manifest, sort_keys=True).encode()}.items():
            _write_durably(partial / name, content)
        _sync_folder(partial)
        place = self.folder / f"{_PREFIX}{step:09d}"
        if place.exists():
            shutil.rmtree(place)
        partial.rename(place)
        _sync_folder(self.folder)
        self._drop_old()
        return place

    def steps(self) -> tuple[int, ...]:
        """Return the steps of all checkpoints, oldest first."""
        return tuple(sorted(int(path.name.removeprefix(_PREFIX)) for path in self.folder.glob(f"{_PREFIX}*")))

    def read(self, step: int) -> Checkpoint:
        """Return one checkpoint.

        Raises:
            CorruptCheckpointError: a file is missing, unreadable, or differs from the manifest.
        """
        place = self.folder / f"{_PREFIX}{step:09d}"
        try:
            manifest = json.loads((place / _MANIFEST).read_bytes())
            files = {name: (place / name).read_bytes() for name in manifest}
        except (OSError, ValueError) as error:
            raise CorruptCheckpointError(f"checkpoint {place.name}: {type(error).__name__}, expected files") from error
        changed = [name for name, content in files.items() if hashlib.sha256(content).hexdigest() != manifest[name]]
        if changed:
            raise CorruptCheckpointError(f"checkpoint {place.name}: {', '.join(changed)} differ from the manifest")
        return Checkpoint(step=step, files=files)

    def newest(self) -> Found:
        """Return the newest unharmed checkpoint, and which newer ones had to be passed over."""
        corrupt: list[int] = []
        for step in reversed(self.steps()):
            try:
                return Found(checkpoint=self.read(step), corrupt=tuple(corrupt))
            except CorruptCheckpointError:
                corrupt.append(step)
        return Found(checkpoint=None, corrupt=tuple(corrupt))

    def _drop_old(self) -> None:
        for step in self.steps()[: -self.keep]:
            shutil.rmtree(self.folder / f"{_PREFIX}{step:09d}")
        for partial in self.folder.glob(".partial-*"):
            shutil.rmtree(partial)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
