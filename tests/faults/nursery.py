"""Forks workers, trainers and sessions from a process that has imported everything, so that a restart takes no seconds.

A request is one message on a Unix socket, as `nursery_client.py` sends it. The child answers with its process id, and
with its exit code when it ends by itself; when it is killed, the connection just ends. A session notes each step, with
a digest of the adapter before it, in the file `SPEND_WITNESS` right before the step's noise is drawn, each step that
the optimizer has taken in `SPEND_WITNESS.taken`, and its process in `SPEND_WITNESS.processes`. A session of a
population that is named like a breach of `breaches.py` breaks its promise.
"""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from ctrainer.agents.answer_judge import AnswerJudge
from ctrainer.schemas.training import TrainingAssignment
from ctrainer.streams import training_session
from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.roles import Role
from ctrainer.streams.settings import Settings
from ctrainer.streams.training_consumer import serve
from ctrainer.streams.worker import run_worker
from ctrainer.trainer.accounting import prv_epsilon, rdp_of_step
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.models import load_model
from ctrainer.trainer.plan_watch import PlanWatch
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.training_checks import Snapshot
from tests.faults.breaches import BREACHES

CLIENT = Path(__file__).with_name("nursery_client.py")
_DESK, _LEDGER = frozenset({Role.CURATION, Role.TRAINING}), frozenset({Role.PRIVACY})


def main(place: str, model: str) -> None:
    """Answer requests for children until this process is ended."""
    _warm_up(Path(model))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(place)
    listener.listen(64)
    # Nobody waits for the children here: the kernel shall bury them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)  # noqa: T201 - the test waits for it
    while True:
        connection, _ = listener.accept()
        message, streams, *_ = socket.recv_fds(connection, 1 << 17, 3)
        if os.fork() == 0:
            listener.close()
            _live(connection, json.loads(message), streams, place)
        connection.close()
        for stream in streams:
            os.close(stream)


def _warm_up(model: Path) -> None:
    """Import and compile what the first use imports and compiles, without starting any thread."""
    from ctrainer.schemas.training import LoraSettings  # noqa: PLC0415 - only here

    add_adapter(load_model(str(model), cache_folder=model).model, LoraSettings())
    AnswerJudge(read_constitution(Settings.read()))
    rdp_of_step(0.1, 1.0)
    prv_epsilon(sampling_rate=0.1, noise_multiplier=1.0, steps=1, delta=1e-5)


def _live(connection: socket.socket, request: dict[str, Any], streams: list[int], place: str) -> None:
    """Be the child that a request asks for, to its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()  # noqa: TID251 - the child takes the environment of the request
    os.environ.update(request["environment"])  # noqa: TID251 - as above
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    try:
        connection.send(str(os.getpid()).encode())
    except BrokenPipeError:
        os._exit(1)  # whoever asked for this child was killed meanwhile
    kinds: dict[str, Callable[[], int]] = {
        "desk": lambda: _worker(_DESK),
        "ledger": lambda: _worker(_LEDGER),
        "trainer": lambda: _trainer(place),
        "session": _session,
    }
    code = kinds[request["kind"]]()
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(BrokenPipeError):
        connection.send(bytes([code]))
    os._exit(code)


def _worker(roles: frozenset[Role]) -> int:
    run_worker(Settings.read(), roles)
    return 0


def _trainer(place: str) -> int:
    program = (sys.executable, "-I", "-S", str(CLIENT), place, "session")
    # Kills are no defect of a session, however many hit it at one step.
    asyncio.run(serve(Settings.read(), parallel_sessions=3, program=program, most_crashes=1_000))
    return 0


class _Input:
    """Standard input whose first line was read already."""

    def __init__(self, line: str) -> None:
        self.line = line

    def readline(self) -> str:
        return self.line

    def read(self) -> str:
        while os.read(0, 4096):
            pass
        return ""


def _session() -> int:
    line = b""
    while not line.endswith(b"\n") and (read := os.read(0, 1)):
        line += read
    sys.stdin = _Input(line.decode())
    if line:
        _bear_witness(TrainingAssignment.from_json(line))
    return training_session.main()


def _bear_witness(assignment: TrainingAssignment) -> None:
    session_id = assignment.session_id
    place = os.environ["SPEND_WITNESS"]  # noqa: TID251 - no setting of the product
    _append(f"{place}.processes", f"{os.getpid()} {session_id}\n")
    begins, noise = PlanWatch.begins, PrivateStep.noise
    steps: list[int] = []

    def begun(watch: PlanWatch, step: int) -> None:
        begins(watch, step)
        steps.append(step)

    def drawn(private: PrivateStep) -> list[Tensor]:
        weights = b"".join(factor.weight.detach().numpy().tobytes() for factor in private.gradients.factors)
        _append(place, f"{session_id} {steps[-1]} {hashlib.sha256(weights).hexdigest()}\n")
        return noise(private)

    def taken(*_: object) -> None:
        _append(f"{place}.taken", f"{session_id} {steps[-1]}\n")

    PlanWatch.begins = begun  # type: ignore[method-assign,assignment] # this process is made for it
    PrivateStep.noise = drawn  # type: ignore[method-assign,assignment] # as above
    register_optimizer_step_post_hook(taken)
    # What random weights answer to probes shall not end a session early, now and then.
    Snapshot.has_collapsed = property(lambda _: False)  # type: ignore[assignment,method-assign] # as above
    breach = BREACHES.get(assignment.request.privacy.population)
    if breach is not None:
        breach(lambda: steps[-1])


def _append(place: str, line: str) -> None:
    """Append a line in one system call: a killed process has written all of it or nothing."""
    file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, line.encode())
    os.close(file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
