"""`ctrainer worker` and `ctrainer trainer`: the two long-running processes."""

from typing import Annotated

import typer

from ctrainer.streams.roles import Role
from ctrainer.streams.settings import Settings

ALL_ROLES = ",".join(Role)


def worker(
    *,
    roles: Annotated[str, typer.Option(help=f"comma-separated, of {ALL_ROLES}")] = ALL_ROLES,
) -> None:
    """Judge samples, seal datasets, assign training, keep the ledger and the audit log, until SIGTERM."""
    # Faust takes half a second to import; no other command shall pay for it.
    from ctrainer.streams.worker import run_worker  # noqa: PLC0415

    run_worker(Settings.read(), Role.parse(roles))


def trainer(
    *,
    parallel_sessions: Annotated[int, typer.Option(min=1, max=5, help="most sessions side by side")] = 1,
    ranks: Annotated[int, typer.Option(min=1, help="processes of a session on each machine: one for each GPU")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="machines that train one session together")] = 1,
    node: Annotated[int, typer.Option(min=0, help="which of them this is: 0 leads, others only compute")] = 0,
    meet: Annotated[str | None, typer.Option(help="host:port of machine 0, where all ranks meet")] = None,
) -> None:
    """Run assigned training sessions, each in a process of its own, until SIGTERM.

    The oldest starts first; another one starts beside it when its estimated memory is free, and waits until then.
    """
    from ctrainer.streams.rank_group import Gathering, run_followers  # noqa: PLC0415 - as above
    from ctrainer.streams.training_consumer import run_trainer  # noqa: PLC0415 - as above

    gathering = Gathering.of(ranks=ranks, nodes=nodes, node=node, meet=meet, parallel_sessions=parallel_sessions)
    if node > 0:
        run_followers(Settings.read(), gathering)
    else:
        run_trainer(Settings.read(), parallel_sessions=parallel_sessions, gathering=gathering)
