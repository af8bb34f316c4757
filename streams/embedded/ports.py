"""Free loopback ports, the same ones again after a restart so that clients find their broker."""

import random
import socket
from pathlib import Path

_BELOW_EPHEMERAL = range(20_000, 32_000)


def remembered_port(file: Path) -> int:
    """Return the port noted in `file` if it is still free, else a free one, and note it."""
    if file.exists() and is_free(noted := int(file.read_text())):
        return noted
    port = free_port()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(port))
    return port


def free_port() -> int:
    """Return a loopback port that nobody listens on now, and that no outgoing connection is given by chance.

    A port from the kernel's own range could be taken by any client while its server restarts.
    """
    ports = random.sample(_BELOW_EPHEMERAL, len(_BELOW_EPHEMERAL))
    return next(port for port in ports if is_free(port))


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
