"""`ctrainer produce` and `ctrainer tail`: records in and out by hand."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from ctrainer.schemas.topics import FLYWHEEL_SAMPLES, TOPICS
from ctrainer.streams.console import Reporter, print_json, print_lines
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import locate
from ctrainer.streams.sample_producer import produce_file
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.streams.topic_tail import as_json
from ctrainer.streams.topic_tail import tail as tail_topic


def produce(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="flywheel records, one JSON object a line")],
    *,
    json: Annotated[bool, typer.Option("--json", help="end with one JSON object")] = False,
) -> None:
    """Send flywheel records from a JSON Lines file to flywheel.samples, bytes untouched."""
    settings = Settings.read()
    total = sum(1 for line in file.open("rb") if line.strip())
    with Reporter() as reporter:
        sent = asyncio.run(
            produce_file(
                file,
                bootstrap_servers=locate(settings).bootstrap_servers,
                security=client_security(settings),
                sent=lambda count: reporter.progress("sent", count, total),
            )
        )
    if json:
        print_json({"topic": FLYWHEEL_SAMPLES, "sent": sent})


def tail(
    topic: Annotated[str, typer.Argument(help=f"one of {', '.join(TOPICS)}")],
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with new records until interrupted")] = False,
) -> None:
    """Print a topic's committed records as JSON lines, for eyes and for pipes."""
    if topic not in TOPICS:
        raise typer.BadParameter(f"got {topic!r}, expected one of {', '.join(TOPICS)}")
    settings = Settings.read()
    reader = TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
    # An interrupt ends the process at once: nothing is to be saved, and a consumer may swallow a cancellation.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(_print(topic, reader, follow=follow))


async def _print(topic: str, reader: TopicReader, *, follow: bool) -> None:
    async for record in tail_topic(topic, reader=reader, follow=follow):
        print_lines([as_json(record)])
