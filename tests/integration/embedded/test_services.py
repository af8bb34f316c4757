from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrainer.streams.embedded import Services, Way, docker, down, maven, status, up
from ctrainer.streams.embedded.kafka import answers
from ctrainer.streams.embedded.redis_server import answers as redis_answers
from ctrainer.streams.settings import Settings


class Machine:
    """The services of one state folder, and what they reported."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[str] = []

    def up(self, *, bootstrap_servers: str | None = None, redis_url: str | None = None) -> Services:
        return up(
            cache_folder=Settings.read().cache_folder,
            state_folder=self.folder,
            bootstrap_servers=bootstrap_servers,
            redis_url=redis_url,
            report=self.reports.append,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "state")
    yield machine
    down(state_folder=machine.folder)


@pytest.mark.skipif(docker.is_available() or not maven.is_available(), reason="this way is not the one taken here")
def test_services_come_up_once_are_found_by_their_folder_and_go_down(machine: Machine) -> None:
    services = machine.up()
    assert services.way is Way.JVM
    assert answers(services.bootstrap_servers)
    assert redis_answers(services.redis_url)
    assert machine.up() == services
    assert status(state_folder=machine.folder) == services
    down(state_folder=machine.folder)
    assert status(state_folder=machine.folder) is None
    assert not answers(services.bootstrap_servers)
    assert not redis_answers(services.redis_url)


def test_given_services_are_used_and_nothing_is_started(machine: Machine, services: Services) -> None:
    given = machine.up(bootstrap_servers=services.bootstrap_servers, redis_url=services.redis_url)
    assert given.way is Way.GIVEN
    assert given.bootstrap_servers == services.bootstrap_servers
    assert not machine.folder.exists()


def test_given_broker_gets_a_redis_of_the_folder(machine: Machine, services: Services) -> None:
    url = machine.up(bootstrap_servers=services.bootstrap_servers).redis_url
    assert url != services.redis_url
    assert redis_answers(url)
