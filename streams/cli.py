"""The command line, `ctrainer`.

Exit codes: 0 done; 1 refused, failed or not healthy, with one line that says why; 2 the command line itself was wrong.
"""

import os
import sys
from pathlib import Path

import typer
from aiokafka.errors import KafkaError
from rich.console import Console

from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.streams.commands import (
    adapters,
    balance,
    budget,
    constitution,
    demo,
    doctor,
    keys,
    privacy,
    receipt,
    review,
    samples,
    screen,
    services,
    sessions,
    submit,
    topics,
    worker,
)
from ctrainer.streams.console import visible

EPILOG = "Exit codes: 0 done; 1 refused, failed or not healthy; 2 wrong command line."

app = typer.Typer(
    name="ctrainer",
    help="Fine-tune on logged LLM traffic that a constitution accepts, under differential privacy, and prove it.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(services.app, name="services")
app.add_typer(topics.app, name="topics")
app.add_typer(keys.app, name="keys")
app.add_typer(submit.app, name="submit")
app.add_typer(sessions.app, name="sessions")
app.add_typer(constitution.app, name="constitution")
app.add_typer(review.app, name="review")
app.add_typer(budget.app, name="budget")
app.add_typer(privacy.app, name="privacy")
app.add_typer(receipt.app, name="receipt")
app.add_typer(adapters.app, name="adapters")
app.command("worker")(worker.worker)
app.command("trainer")(worker.trainer)
app.command("produce")(samples.produce)
app.command("screen")(screen.screen)
app.command("balance")(balance.balance)
app.command("tail")(samples.tail)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; a person's mistake is one line on standard error and never a traceback."""
    _open_closed_streams()
    try:
        app()
    except (ConstitutionalTrainerError, KafkaError) as error:
        _tell(error)
    except OSError as error:
        # What could not be written stays in a buffer that Python would try once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _tell(error)


def _tell(error: Exception) -> None:
    Console(stderr=True).print(
        f"ctrainer: {visible(str(error))}", style="red", markup=False, highlight=False, soft_wrap=True
    )
    sys.exit(1)


def _open_closed_streams() -> None:
    """Put nothing in the place of standard streams that the caller closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process


if __name__ == "__main__":
    main()
