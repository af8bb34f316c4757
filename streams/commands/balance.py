"""`ctrainer balance`: where every sample is."""

import asyncio
from typing import Annotated

import typer

from ctrainer.streams.console import print_json, print_rows
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import locate
from ctrainer.streams.sample_balance import balance_of
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader


def balance(*, json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False) -> None:
    """Count where the samples of flywheel.samples are; exit code 1 where one is lost or counts twice.

    Reads the input, the decisions and the dead letters through. Of several decisions on a sample the last one counts.
    Takes five bytes of memory for each sample of the input.
    """
    settings = Settings.read()
    topics = TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
    found = asyncio.run(balance_of(topics))
    row = {"in": found.received, **found.model_dump(exclude={"received"}), "balances": found.balances}
    if json:
        print_json(row)
    else:
        print_rows("samples", [{"where": name, "how many": count} for name, count in row.items()], as_json=False)
    raise typer.Exit(0 if found.balances else 1)
