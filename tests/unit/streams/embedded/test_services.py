from pathlib import Path

import pytest

from ctrainer.streams.embedded.errors import ServiceError
from ctrainer.streams.embedded.services import Way, choose_way, status, up


class Machine:
    """What a machine has, and which of it was looked for."""

    def __init__(self, *, docker: bool, jvm: bool) -> None:
        self._has = {"docker": docker, "jvm": jvm}
        self.asked: list[str] = []

    def has_docker(self) -> bool:
        return self._answer("docker")

    def has_jvm(self) -> bool:
        return self._answer("jvm")

    def _answer(self, name: str) -> bool:
        self.asked.append(name)
        return self._has[name]


def choose(machine: Machine, *, given: str | None = None, running: Way | None = None) -> Way:
    return choose_way(given=given, running=running, has_docker=machine.has_docker, has_jvm=machine.has_jvm)


def test_given_broker_is_used_without_looking_at_the_machine() -> None:
    machine = Machine(docker=True, jvm=True)
    assert choose(machine, given="broker:9092", running=Way.JVM) is Way.GIVEN
    assert machine.asked == []


@pytest.mark.parametrize("running", [Way.DOCKER, Way.JVM])
def test_broker_that_runs_already_is_kept(running: Way) -> None:
    machine = Machine(docker=True, jvm=True)
    assert choose(machine, running=running) is running
    assert machine.asked == []


def test_docker_comes_before_the_jvm() -> None:
    machine = Machine(docker=True, jvm=True)
    assert choose(machine) is Way.DOCKER
    assert machine.asked == ["docker"]


def test_jvm_serves_where_no_docker_engine_answers() -> None:
    assert choose(Machine(docker=False, jvm=True)) is Way.JVM


def test_machine_without_any_way_gets_one_error_that_names_all_three() -> None:
    with pytest.raises(ServiceError) as caught:
        choose(Machine(docker=False, jvm=False))
    message = str(caught.value)
    assert "\n" not in message
    for way in ("KAFKA_BOOTSTRAP_SERVERS", "Docker", "Java 17+", "Maven"):
        assert way in message


def test_given_broker_that_does_not_answer_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1"):
        up(
            cache_folder=tmp_path,
            state_folder=tmp_path / "state",
            bootstrap_servers="127.0.0.1:1",
            redis_url=None,
            report=lambda _text: None,
        )
    assert not (tmp_path / "state").exists()


def test_nothing_runs_from_a_folder_that_was_never_used(tmp_path: Path) -> None:
    assert status(state_folder=tmp_path) is None
