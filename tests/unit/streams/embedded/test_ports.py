import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrainer.streams.embedded.ports import free_port, is_free, remembered_port


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        yield server


def test_port_is_the_same_again_while_it_is_free(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "kafka.port"
    first = remembered_port(file)
    assert [remembered_port(file) for _ in range(5)] == [first] * 5


def test_port_that_another_server_took_is_replaced_and_the_new_one_is_remembered(
    tmp_path: Path, listener: socket.socket
) -> None:
    taken = listener.getsockname()[1]
    file = tmp_path / "kafka.port"
    file.write_text(str(taken))
    replacement = remembered_port(file)
    assert replacement != taken
    assert is_free(replacement)
    assert file.read_text() == str(replacement)


def test_port_with_a_listener_is_not_free(listener: socket.socket) -> None:
    assert not is_free(listener.getsockname()[1])


def test_port_is_free_again_as_soon_as_its_listener_closed_though_clients_were_connected() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        accepted.close()
        port = server.getsockname()[1]
    assert is_free(port)


def test_free_ports_are_outside_the_range_that_outgoing_connections_get() -> None:
    assert all(20_000 <= free_port() < 32_000 for _ in range(50))
