"""`ctrainer topics`: the topic table on the broker."""

import asyncio
from typing import Annotated

import typer

from ctrainer.schemas.topics import TOPICS
from ctrainer.streams.console import print_json, print_rows
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import locate
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_administration import TopicAdministration

app = typer.Typer(help="Create the topics, or compare the broker's with the table.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="one JSON object per line")]


def administration(settings: Settings) -> TopicAdministration:
    """Return the topic administration of the deployment that the settings describe."""
    return TopicAdministration(
        bootstrap_servers=locate(settings).bootstrap_servers,
        partitions=settings.partitions,
        replication_factor=settings.replication_factor,
        security=client_security(settings),
    )


@app.command()
def apply(*, json: Json = False) -> None:
    """Create the topics that are missing; leave the others as they are."""
    created = set(asyncio.run(administration(Settings.read()).apply()))
    rows = [{"topic": name, "state": "created" if name in created else "was there"} for name in TOPICS]
    print_rows("topics", rows, as_json=json)


@app.command()
def check(*, json: Json = False) -> None:
    """Compare the broker's topics with the table; exit code 1 where they differ."""
    differences = asyncio.run(administration(Settings.read()).check())
    if json:
        print_json({"equal": not differences, "differences": differences})
    else:
        print_rows("differences", [{"difference": text} for text in differences or ("none",)], as_json=False)
    if differences:
        raise typer.Exit(1)
