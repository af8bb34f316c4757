from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree as ET

from ctrainer.streams.embedded import maven

NAMES = {"maven": "http://maven.apache.org/POM/4.0.0"}


def test_pom_asks_for_the_version_that_is_reported() -> None:
    pom = ET.fromstring((files("ctrainer.streams.embedded") / "pom.xml").read_text())  # noqa: S314 - our own file
    found = {
        str(entry.findtext("maven:artifactId", namespaces=NAMES)): entry.findtext("maven:version", namespaces=NAMES)
        for entry in pom.iterfind("maven:dependencies/maven:dependency", NAMES)
    }
    assert found == {"kafka_2.13": maven.KAFKA_VERSION, "slf4j-simple": "1.7.36"}


def test_jars_that_are_in_the_cache_are_not_resolved_again(tmp_path: Path) -> None:
    (tmp_path / maven.folder_name()).mkdir()
    assert maven.libraries(tmp_path) == tmp_path / maven.folder_name()
    assert list(tmp_path.iterdir()) == [tmp_path / maven.folder_name()]
