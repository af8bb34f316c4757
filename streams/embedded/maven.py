"""The broker as a Java program: resolved once by Maven, started with the local JVM."""

import re
import shutil
import subprocess
from importlib.resources import as_file, files
from pathlib import Path

from ctrainer.streams.embedded.errors import ServiceError

KAFKA_VERSION = "4.3.0"
OLDEST_JAVA = 17


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
    """Return a folder with the broker's jars, resolving them on first use.

    Raises:
        ServiceError: Maven could not resolve them.
    """
    folder = cache_folder / f"kafka-{KAFKA_VERSION}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        _resolve(partial)
        partial.rename(folder)
    return folder


def _resolve(folder: Path) -> None:
    folder.mkdir(parents=True)
    with as_file(files("ctrainer.streams.embedded") / "pom.xml") as pom:
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own POM
    if answer.returncode:
        raise ServiceError(f"Maven could not resolve Apache Kafka {KAFKA_VERSION}: {answer.stdout[-500:].strip()}")
