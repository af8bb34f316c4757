import re
import socket
from importlib.resources import files
from pathlib import Path

import yaml

from ctrainer.streams.embedded.docker import Containers
from ctrainer.streams.embedded.maven import KAFKA_VERSION

COMPOSE = (files("ctrainer.streams.embedded") / "compose.yaml").read_text()
SETTINGS = (files("ctrainer.streams.embedded") / "server.properties").read_text()
ROOT = Path(__file__).parents[4]


def test_two_state_folders_have_containers_of_their_own(tmp_path: Path) -> None:
    one, other = Containers(folder=tmp_path / "one"), Containers(folder=tmp_path / "other")
    one.prepare()
    other.prepare()
    assert not set(one.environment_file.read_text().split()) & set(other.environment_file.read_text().split())


def test_addresses_are_those_of_the_noted_ports(tmp_path: Path) -> None:
    containers = Containers(folder=tmp_path)
    containers.environment_file.write_text(
        "COMPOSE_PROJECT_NAME=x\nCTRAINER_KAFKA_PORT=21001\nCTRAINER_REDIS_PORT=21002\n"
    )
    assert containers.bootstrap_servers == "127.0.0.1:21001"
    assert containers.redis_url == "redis://127.0.0.1:21002/0"


def test_containers_run_from_when_their_port_has_a_listener(tmp_path: Path) -> None:
    containers = Containers(folder=tmp_path)
    assert not containers.are_running()
    containers.prepare()
    assert not containers.are_running()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(containers.bootstrap_servers.rpartition(":")[2])))
        listener.listen()
        assert containers.are_running()


def test_compose_file_publishes_on_loopback_only() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_file_uses_no_variable_that_is_not_noted(tmp_path: Path) -> None:
    containers = Containers(folder=tmp_path)
    containers.prepare()
    used = set(re.findall(r"\$\{(\w+)", COMPOSE))
    assert used < {line.partition("=")[0] for line in containers.environment_file.read_text().splitlines()}


def test_container_runs_the_same_kafka_with_the_same_settings_as_the_local_process() -> None:
    broker = yaml.safe_load(COMPOSE)["services"]["kafka"]
    assert broker["image"] == f"apache/kafka:{KAFKA_VERSION}"
    lines = [line.split("=", 1) for line in SETTINGS.splitlines() if line and not line.startswith("#")]
    local = {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in lines}
    differing = {name for name in local if broker["environment"].get(name) != local[name]}
    assert differing <= OF_THE_PLACE
    assert differing >= {"KAFKA_LISTENERS", "KAFKA_LOG_DIRS"}


OF_THE_PLACE = {
    "KAFKA_ADVERTISED_LISTENERS",
    "KAFKA_CONTROLLER_QUORUM_BOOTSTRAP_SERVERS",
    "KAFKA_LISTENERS",
    "KAFKA_LOG_DIRS",
}


def test_compose_file_at_the_top_is_the_packaged_one() -> None:
    (included,) = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["include"]
    assert (ROOT / included).read_text() == COMPOSE
