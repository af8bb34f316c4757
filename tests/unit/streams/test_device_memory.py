import subprocess
import sys
from pathlib import Path

import pytest

from ctrainer.streams.device_memory import (
    DeviceMemory,
    SystemMemory,
    group_folders,
    group_room,
    of_machine,
    read_answer,
)
from ctrainer.trainer.admission import Room
from tests.fixed_memory import FixedMemory

MEMINFO = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 800 kB\nHugePages_Total: 0\n"
KIB = 1024


def control_group(folder: Path, *, limit: str, used: int, cached: int = 0, version: int = 2) -> Path:
    most, taken, stat = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    folder.mkdir(parents=True)
    (folder / most).write_text(f"{limit}\n")
    (folder / taken).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cached}\n{stat} {cached}\n")
    return folder


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(MEMINFO)
    return file


def room_of(meminfo: Path, groups: Path, listing: str) -> Room | None:
    own = meminfo.with_name("own")
    own.write_text(listing)
    return of_machine(meminfo=meminfo, groups=groups, own_groups=own)


@pytest.mark.parametrize("device", [SystemMemory(), FixedMemory(Room(total=10, free=4))], ids=["real", "fake"])
def test_a_device_has_some_memory_and_at_most_all_of_it_is_free(device: DeviceMemory) -> None:
    for _ in range(2):
        room = device.room()
        assert room is not None
        assert 0 <= room.free <= room.total
        assert room.total > 0


def test_a_machine_gives_what_the_kernel_thinks_it_could(meminfo: Path, tmp_path: Path) -> None:
    assert room_of(meminfo, tmp_path, "") == Room(total=1000 * KIB, free=800 * KIB)


def test_a_machine_that_does_not_tell_has_no_room(tmp_path: Path) -> None:
    assert of_machine(meminfo=tmp_path / "none", groups=tmp_path, own_groups=tmp_path / "none") is None
    (tmp_path / "meminfo").write_text("MemTotal: 8 kB\n")
    assert of_machine(meminfo=tmp_path / "meminfo", groups=tmp_path, own_groups=tmp_path / "none") is None


@pytest.mark.parametrize(
    ("version", "folder", "listing"),
    [
        (2, "groups/slice/ours", "0::/slice/ours\n"),
        (2, "groups/slice", "0::/slice/ours\n"),
        (2, "groups", "0::/a/path/of/the/host\n"),
        (1, "groups/memory/ours", "4:cpu:/\n3:memory:/ours\n0::/\n"),
        (1, "groups/memory", "3:memory:/a/path/of/the/host\n"),
    ],
)
def test_the_limit_of_a_container_counts_and_cached_files_are_free(
    meminfo: Path, tmp_path: Path, version: int, folder: str, listing: str
) -> None:
    control_group(tmp_path / folder, limit=str(500 * KIB), used=400 * KIB, cached=150 * KIB, version=version)
    assert room_of(meminfo, tmp_path / "groups", listing) == Room(total=500 * KIB, free=250 * KIB)


@pytest.mark.parametrize("limit", ["max", str(2**63)])
def test_a_group_without_a_limit_leaves_the_machine_as_it_is(meminfo: Path, tmp_path: Path, limit: str) -> None:
    control_group(tmp_path / "groups", limit=limit, used=400 * KIB)
    assert room_of(meminfo, tmp_path / "groups", "0::/\n") == Room(total=1000 * KIB, free=800 * KIB)


def test_a_group_that_has_taken_more_than_its_limit_has_nothing_free(tmp_path: Path) -> None:
    assert group_room(control_group(tmp_path / "ours", limit="100", used=130)) == Room(total=100, free=0)


def test_only_groups_that_exist_are_asked(tmp_path: Path) -> None:
    assert list(group_folders(tmp_path / "groups", "0::/ours\nbroken:cpu:/\n")) == []


@pytest.mark.parametrize("answer", [b"", b"null", b"no numbers", b"[1]", b'["a", "b"]'])
def test_an_answer_about_a_gpu_that_says_nothing_is_no_room(answer: bytes) -> None:
    assert read_answer(answer) is None


def test_the_process_that_asks_the_gpu_answers_and_ends() -> None:
    command = [sys.executable, "-m", "ctrainer.streams.device_memory"]
    asked = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert asked.stdout == b"null" or read_answer(asked.stdout) is not None
