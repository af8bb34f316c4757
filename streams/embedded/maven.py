"""The broker as a Java program: resolved once by Maven, started with the local JVM."""

import re
import shutil
import subprocess
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

from ctrainer.streams.embedded.errors import ServiceError

KAFKA_VERSION = "4.3.0"
OLDEST_JAVA = 17
_POM = files("ctrainer.streams.embedded") / "pom.xml"


def java() -> str | None:
    """Return the path of a Java 17 or newer, or None."""
    path = shutil.which("java")
    if path is None:
        return None
    answer = subprocess.run([path, "-version"], capture_output=True, text=True, check=False)  # noqa: S603 - found on PATH
    version = re.search(r'version "(\d+)', answer.stderr)
    return path if version and int(version[1]) >= OLDEST_JAVA else None


def is_available() -> bool:
    """Return whether a broker can be had this way."""
    return java() is not None and shutil.which("mvn") is not None


def libraries(cache_folder: Path) -> Path:
    """Return a folder with the jars that the POM names, resolving them on first use.

    Raises:
        ServiceError: Maven could not resolve them.
    """
    folder = cache_folder / folder_name()
    if not folder.exists():
        cache_folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache_folder, prefix="resolving-") as partial:
            _resolve(Path(partial) / "jars")
            _move(Path(partial) / "jars", folder)
    return folder


def folder_name() -> str:
    """Return the name of the folder with the jars, another one for every POM."""
    return f"kafka-{KAFKA_VERSION}-{sha256(_POM.read_bytes()).hexdigest()[:8]}"


def _resolve(folder: Path) -> None:
    with as_file(_POM) as pom:
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own POM
    if answer.returncode:
        raise ServiceError(f"Maven could not resolve Apache Kafka {KAFKA_VERSION}: {answer.stdout[-500:].strip()}")


def _move(resolved: Path, folder: Path) -> None:
    """Put the jars where they belong, unless another process was faster."""
    try:
        resolved.rename(folder)
    except OSError:
        if not folder.exists():
            raise
