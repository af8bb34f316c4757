"""Stands for a child of the nursery as a process of the usual kind: `nursery_client.py SOCKET KIND`.

It passes SIGTERM on, prints the child's process id for workers and trainers, and ends as the child ends.
"""

import json
import os
import signal
import socket
import sys

place, kind = sys.argv[1:]
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(place)
request = json.dumps({"kind": kind, "environment": dict(os.environ)})  # noqa: TID251 - passed on
socket.send_fds(connection, [request.encode()], [0, 1, 2])
child = int(connection.recv(32))
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
if kind != "session":
    print(child, flush=True)  # noqa: T201 - the test reads it
status = connection.recv(1)
if not status:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(status[0])
