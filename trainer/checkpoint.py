"""Checkpoints of one session: folders that are whole or absent, and say themselves whether they are unharmed."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctrainer.trainer.durability import sync, write_durably
from ctrainer.trainer.errors import CheckpointNotSavedError, CorruptCheckpointError

_MANIFEST = "manifest.json"
_PREFIX = "step-"
_NAME = re.compile(rf"{_PREFIX}(\d{{9,}})")
_PARTIAL = ".partial-"


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
        """Save a checkpoint durably: after this returns it survives a power cut, before it does not exist.

        Raises:
            CheckpointNotSavedError: the disk is full or does not accept it. What was saved before is as it was.
        """
        place = self._place(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._drop_partial()
            partial = self._written(files)
            if place.exists():
                place.rename(partial.with_name(f"{partial.name}-replaced"))
            partial.rename(place)
            sync(self.folder)
        except OSError as error:
            self._drop_partial()
            raise self._not_saved(f"checkpoint {place.name}", error) from error
        self._drop_old()
        return place

    def ensure_room(self, size: int) -> None:
        """Make sure that a checkpoint of `size` bytes fits, before anything is spent on what it would hold.

        Raises:
            CheckpointNotSavedError: it does not.
        """
        room = self.folder / f"{_PARTIAL}room"
        try:
            room.mkdir(parents=True, exist_ok=True)
            with (room / "size").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise self._not_saved("the next checkpoint", error) from error
        finally:
            self._drop_partial()

    def steps(self) -> tuple[int, ...]:
        """Return the steps of all checkpoints, oldest first."""
        found = (_NAME.fullmatch(path.name) for path in self.folder.glob(f"{_PREFIX}*"))
        return tuple(sorted(int(match[1]) for match in found if match))

    def read(self, step: int) -> Checkpoint:
        """Return one checkpoint.

        Raises:
            CorruptCheckpointError: a file is missing, unreadable, or differs from the manifest.
        """
        place = self._place(step)
        try:
            manifest = _manifest(json.loads((place / _MANIFEST).read_bytes()))
            files = {name: (place / name).read_bytes() for name in manifest}
        except (OSError, ValueError) as error:
            raise CorruptCheckpointError(
                f"checkpoint {place.name}: {type(error).__name__}, expected its files"
            ) from error
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

    def drop_older(self) -> None:
        """Remove every checkpoint but the newest one."""
        for step in self.steps()[:-1]:
            shutil.rmtree(self._place(step), ignore_errors=True)

    def _place(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:09d}"

    def _not_saved(self, what: str, error: OSError) -> CheckpointNotSavedError:
        return CheckpointNotSavedError(
            f"{what}: got {error.strerror or type(error).__name__}, expected room in {self.folder};"
            " make room and restart: training goes on from the checkpoint before"
        )

    def _written(self, files: Mapping[str, bytes]) -> Path:
        """Write the files and their manifest into a folder that is no checkpoint yet."""
        partial = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=self.folder))
        manifest = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        for name, content in {**files, _MANIFEST: json.dumps(manifest, sort_keys=True).encode()}.items():
            write_durably(partial / name, content)
        sync(partial)
        return partial

    def _drop_old(self) -> None:
        # What cannot be removed is only older, and tried again at the next save.
        for step in self.steps()[: -self.keep]:
            shutil.rmtree(self._place(step), ignore_errors=True)
        self._drop_partial()

    def _drop_partial(self) -> None:
        for partial in self.folder.glob(f"{_PARTIAL}*"):
            shutil.rmtree(partial, ignore_errors=True)


def _manifest(content: object) -> dict[str, str]:
    """Return the digests by file name of a manifest that names files beside it; raises ValueError for any other."""
    match content:
        case dict() if content and all(_is_entry(name, digest) for name, digest in content.items()):
            return content
        case _:
            raise ValueError("not a manifest")


def _is_entry(name: object, digest: object) -> bool:
    return isinstance(name, str) and isinstance(digest, str) and name not in {"", "."} and Path(name).name == name
