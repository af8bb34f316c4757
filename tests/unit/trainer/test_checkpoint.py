import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.errors import CheckpointNotSavedError, CorruptCheckpointError

FILES = {"weights": b"\x00\x01" * 100, "position": b"{}"}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(folder=tmp_path / "session")


def test_what_is_saved_is_read_again(checkpoints: Checkpoints) -> None:
    checkpoints.save(8, FILES)
    found = checkpoints.newest()
    assert found.checkpoint is not None
    assert (found.checkpoint.step, dict(found.checkpoint.files), found.corrupt) == (8, FILES, ())


def test_nothing_saved_is_nothing_found(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest().checkpoint is None


def test_only_the_newest_two_stay(checkpoints: Checkpoints) -> None:
    for step in (8, 16, 24):
        checkpoints.save(step, FILES)
    assert checkpoints.steps() == (16, 24)


def test_a_step_saved_again_replaces_itself(checkpoints: Checkpoints) -> None:
    checkpoints.save(8, {"weights": b"old"})
    checkpoints.save(8, FILES)
    assert dict(checkpoints.read(8).files) == FILES


@pytest.mark.parametrize("harm", ["changed", "missing", "cut", "no manifest", "manifest cut"])
def test_a_harmed_checkpoint_is_passed_over_and_reported(checkpoints: Checkpoints, harm: str) -> None:
    checkpoints.save(8, FILES)
    place = checkpoints.save(16, FILES)
    match harm:
        case "changed":
            (place / "weights").write_bytes(b"\x01\x01" * 100)
        case "missing":
            (place / "position").unlink()
        case "cut":
            (place / "weights").write_bytes(FILES["weights"][:-1])
        case "no manifest":
            (place / "manifest.json").unlink()
        case _:
            (place / "manifest.json").write_bytes(b'{"wei')
    with pytest.raises(CorruptCheckpointError, match="step-000000016"):
        checkpoints.read(16)
    found = checkpoints.newest()
    assert found.checkpoint is not None
    assert (found.checkpoint.step, found.corrupt) == (8, (16,))


def test_a_save_that_was_cut_short_is_not_a_checkpoint(checkpoints: Checkpoints) -> None:
    partial = checkpoints.folder / ".partial-left"
    partial.mkdir(parents=True)
    (partial / "weights").write_bytes(b"half")
    assert checkpoints.newest().checkpoint is None
    checkpoints.save(8, FILES)
    assert not partial.exists()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the operating system refuse larger files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("step", [8, 16])
def test_a_full_disk_is_named_and_what_was_saved_stays_valid(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(8, FILES)
    with largest_file(100), pytest.raises(CheckpointNotSavedError, match=r"File too large.*make room"):
        checkpoints.save(step, {**FILES, "weights": b"new" * 100})
    assert checkpoints.steps() == (8,)
    assert dict(checkpoints.read(8).files) == FILES
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000000008"]
    checkpoints.save(step, FILES)
    assert checkpoints.steps()[-1] == step


def test_room_for_a_checkpoint_is_known_before_it_is_needed(checkpoints: Checkpoints) -> None:
    checkpoints.save(8, FILES)
    checkpoints.ensure_room(10_000)
    with largest_file(100), pytest.raises(CheckpointNotSavedError, match="the next checkpoint: got File too large"):
        checkpoints.ensure_room(10_000)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000000008"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointNotSavedError, match="Not a directory"):
        Checkpoints(folder=tmp_path / "file" / "checkpoints").save(1, FILES)


@pytest.mark.parametrize(
    "manifest",
    [
        b"{}",
        b"[]",
        b"null",
        b'"text"',
        b'{"weights": 1}',
        b'{"../step-000000008/weights": "00"}',
        b'{"/etc/hosts": "0"}',
    ],
)
def test_a_manifest_of_another_form_is_passed_over(checkpoints: Checkpoints, manifest: bytes) -> None:
    checkpoints.save(8, FILES)
    (checkpoints.save(16, FILES) / "manifest.json").write_bytes(manifest)
    found = checkpoints.newest()
    assert found.checkpoint is not None
    assert (found.checkpoint.step, found.corrupt) == (8, (16,))


def test_folders_of_others_are_not_taken_for_checkpoints(checkpoints: Checkpoints) -> None:
    checkpoints.save(8, FILES)
    for name in ("step-", "step-latest", "step-12", "notes"):
        (checkpoints.folder / name).mkdir()
    assert checkpoints.steps() == (8,)
