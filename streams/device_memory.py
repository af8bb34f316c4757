"""How much memory the device that trains has: that of the first GPU, or of this machine where there is none."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ctrainer.trainer.admission import Room

_MEMINFO = Path("/proc/meminfo")
_QUERY = ("--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits")


class DeviceMemory(Protocol):
    """Something that knows how much memory there is."""

    def room(self) -> Room | None:
        """Return the memory of the device that trains; None where nobody knows."""


@dataclass(frozen=True, slots=True)
class SystemMemory:
    """Asks the driver's own tool or the kernel: asking through CUDA would take half a gigabyte of the GPU."""

    def room(self) -> Room | None:
        """Return the memory of the first GPU, or what this machine could give to processes."""
        tool = shutil.which("nvidia-smi")
        return (_of_gpu(tool) if tool else None) or _of_machine()


def _of_gpu(tool: str) -> Room | None:
    asked = subprocess.run([tool, *_QUERY], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 - the driver's own tool
    return read_gpus(asked.stdout) if asked.returncode == 0 else None


def read_gpus(text: str) -> Room | None:
    r"""Read what the driver's tool says of the first GPU, in MiB.

    >>> read_gpus("81559, 80000\n")
    Room(total=85520809984, free=83886080000)
    """
    first = (text.splitlines() or [""])[0]
    numbers = [part.strip() for part in first.split(",")]
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers):  # noqa: PLR2004 - total and free
        return None
    total, free = (int(number) * 1024**2 for number in numbers)
    return Room(total=total, free=free)


def _of_machine() -> Room | None:
    return read_meminfo(_MEMINFO.read_text()) if _MEMINFO.exists() else None


def read_meminfo(text: str) -> Room | None:
    r"""Read the kernel's account of memory, in KiB.

    >>> read_meminfo("MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n")
    Room(total=8192, free=4096)
    """
    lines = (line.split() for line in text.splitlines())
    kibibytes = {line[0].rstrip(":"): int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}
    if not {"MemTotal", "MemAvailable"} <= kibibytes.keys():
        return None
    return Room(total=kibibytes["MemTotal"] * 1024, free=kibibytes["MemAvailable"] * 1024)
