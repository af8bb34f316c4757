"""`ctrainer services`: Apache Kafka and Redis on this machine."""

from typing import Annotated

import typer

from ctrainer.streams import embedded
from ctrainer.streams.console import Reporter, print_json, print_rows
from ctrainer.streams.settings import Settings

app = typer.Typer(help="Start and stop Apache Kafka and Redis on this machine.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="one JSON object per line")]


@app.command()
def up(*, json: Json = False) -> None:
    """Start what is not running yet, wait until it answers, and print the addresses."""
    settings = Settings.read()
    services = embedded.up(
        cache_folder=settings.cache_folder,
        state_folder=settings.state_folder,
        bootstrap_servers=settings.kafka_bootstrap_servers,
        redis_url=settings.redis_url,
        report=Reporter().say,
    )
    _print(services, as_json=json)


@app.command()
def down(*, json: Json = False) -> None:
    """Stop what `up` started; its data stays."""
    embedded.down(state_folder=Settings.read().state_folder)
    if json:
        print_json({"running": False})


@app.command()
def status(*, json: Json = False) -> None:
    """Say what runs; exit code 1 when nothing does."""
    services = embedded.status(state_folder=Settings.read().state_folder)
    if services is None:
        Reporter().say("no services run from this state folder; `ctrainer services up` starts them")
        raise typer.Exit(1)
    _print(services, as_json=json)


def _print(services: embedded.Services, *, as_json: bool) -> None:
    row = {"KAFKA_BOOTSTRAP_SERVERS": services.bootstrap_servers, "REDIS_URL": services.redis_url}
    print_rows("services", [row], as_json=as_json)
