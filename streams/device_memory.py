"""How much memory the device that trains has: the GPU that sessions would take, or this machine where there is none.

A GPU is asked by a process that ends at once (`python -m ctrainer.streams.device_memory`): whoever asks keeps a context
there, about half a gigabyte. On a machine without the driver of any GPU no process is started.
"""

import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

import orjson

from ctrainer.trainer.admission import Room

_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))
_MEMINFO = Path("/proc/meminfo")
_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_ASK_SECONDS = 120.0
_KEEP_SECONDS = 10.0
_LOG = logging.getLogger(__name__)


class DeviceMemory(Protocol):
    """Something that knows how much memory there is."""

    def room(self) -> Room | None:
        """Return the memory of the device that trains, at most some seconds old; None where nobody can tell."""


@dataclass(slots=True)
class SystemMemory:
    """Asks the GPU that sessions take, else the kernel. To ask a GPU takes seconds; its answer is kept for some."""

    _has_gpu: bool = field(default_factory=lambda: any(driver.exists() for driver in _DRIVERS), init=False)
    _asked: tuple[float, Room | None] | None = field(default=None, init=False)

    def room(self) -> Room | None:
        """Return the memory of the GPU, or what this machine, or our container, could give to processes."""
        if not self._has_gpu:
            return of_machine(meminfo=_MEMINFO, groups=_GROUPS, own_groups=_OWN_GROUPS)
        now = time.monotonic()
        if self._asked is None or now - self._asked[0] > _KEEP_SECONDS:
            answer = _ask_gpu()
            # A driver without a GPU that our torch could use: sessions train on the CPU.
            self._has_gpu = answer != b"null"
            self._asked = (now, read_answer(answer))
        return self._asked[1] if self._has_gpu else self.room()


def _ask_gpu() -> bytes:
    command = [sys.executable, "-m", "ctrainer.streams.device_memory"]
    try:
        asked = subprocess.run(command, capture_output=True, timeout=_ASK_SECONDS, check=True)  # noqa: S603 - ourselves
    except (subprocess.SubprocessError, OSError) as error:
        _LOG.warning("the memory of the GPU cannot be told: %s", type(error).__name__)
        return b""
    return asked.stdout.strip()


def read_answer(answer: bytes) -> Room | None:
    """Read what the process said that asked the GPU: two numbers, or nothing.

    >>> read_answer(b"[85520809984, 83886080000]")
    Room(total=85520809984, free=83886080000, halves=True)
    """
    try:
        total, free = orjson.loads(answer)
        return Room(total=int(total), free=int(free), halves=True)
    except (ValueError, TypeError):
        return None


def of_machine(*, meminfo: Path, groups: Path, own_groups: Path) -> Room | None:
    """Return the memory of this machine, or that of the narrowest control group we are in; None off Linux."""
    if not meminfo.exists():
        return None
    machine = read_meminfo(meminfo.read_text())
    if machine is None:
        return None
    listing = own_groups.read_text() if own_groups.exists() else ""
    limits = [limit for folder in group_folders(groups, listing) if (limit := group_room(folder))]
    return replace(
        machine,
        total=min([machine.total, *(limit.total for limit in limits)]),
        free=min([machine.free, *(limit.free for limit in limits)]),
    )


def read_meminfo(text: str) -> Room | None:
    r"""Read the kernel's account of memory, in KiB.

    >>> read_meminfo("MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n")
    Room(total=8192, free=4096, halves=False)
    """
    sizes = _numbers(text.replace(":", " "))
    if not {"MemTotal", "MemAvailable"} <= sizes.keys():
        return None
    return Room(total=sizes["MemTotal"] * 1024, free=sizes["MemAvailable"] * 1024)


def group_folders(groups: Path, listing: str) -> Iterator[Path]:
    """Yield the folders of our control groups that may limit memory, and of those above; `listing` names ours.

    In a container the path of the listing may be that of the host: then only the top exists, and is our own.
    """
    for line in listing.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            top = groups / "memory" if controllers else groups
            own = PurePosixPath(path.lstrip("/"))
            yield from (top / part for part in (own, *own.parents) if (top / part).is_dir())


def group_room(folder: Path) -> Room | None:
    """Return the limit of a control group (version 2 or 1), and what of it is free; cached files count as free."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (folder / limit).exists() and (folder / used).exists():
            most = (folder / limit).read_text().strip()
            if not most.isdigit():
                return None
            given_back = _numbers((folder / "memory.stat").read_text()).get(cached, 0)
            taken = int((folder / used).read_text()) - given_back
            return Room(total=int(most), free=max(0, int(most) - taken))
    return None


def _numbers(text: str) -> dict[str, int]:
    words = (line.split() for line in text.splitlines())
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def main() -> None:
    """Write the total and the free bytes of the GPU that a session would take; null where there is none."""
    # torch takes seconds to import, and the trainer that imports this module has no use for it.
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        sys.stdout.write("null")
        return
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        free, _ = torch.cuda.mem_get_info(0)
    except RuntimeError:
        # Not even a context fits.
        free = 0
    sys.stdout.write(f"[{total}, {free}]")


if __name__ == "__main__":
    main()
