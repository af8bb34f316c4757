"""Harmless code and machine text, of which conversations are full and labelled sets hold almost none."""

import random
from collections.abc import Iterator, Sequence
from importlib.metadata import files
from pathlib import Path

PACKAGES = ("scikit-learn", "scipy", "torch", "transformers")
"""Packages that training needs anyway, at versions that are pinned: the same pieces for everybody."""
_SUFFIXES = {".py": 700, ".pyi": 40, ".pyx": 120, ".h": 300, ".cpp": 40, ".cuh": 60, ".cmake": 40}
"""How many pieces to cut out of files that end so."""
_LINES = (1, 2, 4, 8, 15, 30)
_FEWEST_CHARACTERS = 12


def library_code() -> list[str]:
    """Return pieces of 1 to 30 lines of the sources of installed packages, in a fixed order."""
    chance = random.Random(19)
    return [piece for suffix, count in _SUFFIXES.items() for piece in _pieces(_sources(suffix), count, chance)]


def _sources(suffix: str) -> list[Path]:
    found = (file for package in PACKAGES for file in files(package) or () if file.suffix == suffix)
    return [Path(str(file.locate())) for file in sorted(found, key=str)]


def _pieces(sources: Sequence[Path], count: int, chance: random.Random) -> Iterator[str]:
    for file in chance.choices(sources, k=count):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        length = chance.choice(_LINES)
        start = chance.randrange(max(1, len(lines) - length))
        piece = "\n".join(lines[start : start + length]).strip()
        if len(piece) >= _FEWEST_CHARACTERS:
            yield piece
