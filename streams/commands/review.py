"""`ctrainer review`: what waits for a person, and the person's verdict."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ctrainer.agents.events import event_caused_by
from ctrainer.agents.records import Record
from ctrainer.schemas.compliance import SampleJudged
from ctrainer.schemas.envelope import binary_headers, event_type, header
from ctrainer.schemas.errors import ConstitutionalTrainerError
from ctrainer.schemas.review import ReviewDecision, ReviewVerdict
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, DEAD_LETTERS, REVIEW_DECISIONS
from ctrainer.streams.active_constitution import reference_in_force
from ctrainer.streams.console import print_rows
from ctrainer.streams.event_watch import watch
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.keyring import read_signing_key
from ctrainer.streams.location import locate
from ctrainer.streams.review_list import InReview, sample_in_review, samples_in_review
from ctrainer.streams.settings import Settings
from ctrainer.streams.signed_producer import SignedProducer
from ctrainer.streams.topic_reader import TopicReader


class DecisionRefusedError(ConstitutionalTrainerError):
    """The review stage did not take a decision."""


app = typer.Typer(help="Read what waits for a person, and decide.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="one JSON object per line")]


@app.command("list")
def list_samples(
    *,
    show_text: Annotated[bool, typer.Option("--show-text", help="also print the conversations, redacted")] = False,
    json: Json = False,
) -> None:
    """Show the samples that wait for a person."""
    waiting = asyncio.run(samples_in_review(_topics(Settings.read())))
    print_rows("in review", [_row(found, show_text=show_text) for found in waiting], as_json=json)


@app.command()
def decide(
    sample_id: Annotated[str, typer.Argument(help="the id of the sample")],
    verdict: Annotated[ReviewVerdict, typer.Argument(help="accept or reject")],
    *,
    reason: Annotated[str, typer.Option(help="why, for the record; do not quote the sample")],
    key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="your private key")] = None,
    json: Json = False,
) -> None:
    """Send a signed verdict on one sample and wait for what becomes of it."""
    settings = Settings.read()
    place, judged = asyncio.run(_decide(settings, sample_id, verdict, reason, key))
    print_rows("decision", [{"sample": sample_id, "verdict": judged.verdict.value, "sent_to": place}], as_json=json)


async def _decide(
    settings: Settings, sample_id: str, verdict: ReviewVerdict, reason: str, key: Path | None
) -> tuple[str, SampleJudged]:
    topics = _topics(settings)
    found = await sample_in_review(topics, sample_id)
    decision = ReviewDecision(
        sample_id=sample_id,
        tenant=found.sample.tenant,
        parked=found.place,
        verdict=verdict,
        reason=reason,
        constitution=await reference_in_force(settings, topics),
    )
    producer = SignedProducer(
        bootstrap_servers=topics.bootstrap_servers,
        key=read_signing_key(key) if key else None,
        security=topics.security,
    )
    headers = binary_headers({"type": event_type(ReviewDecision), "subject": sample_id})
    async with watch(topics, [COMPLIANCE_EVENTS, DEAD_LETTERS]) as events:
        place = await producer.send(REVIEW_DECISIONS, key=sample_id.encode(), value=decision.to_json(), headers=headers)
        judged = await events.first(partial(_outcome, place), within_seconds=60.0, what="outcome of the decision")
    return place, judged


def _outcome(place: str, record: Record) -> SampleJudged | None:
    """Return what a record says became of the decision at `place`, or None where it is about something else.

    Raises:
        DecisionRefusedError: the record is its dead letter.
    """
    if record.topic == COMPLIANCE_EVENTS:
        return event_caused_by(place, record, SampleJudged)
    if record.key == place.encode():
        reason, message = (header(record.headers, f"dlq.{name}") for name in ("reason", "error.message"))
        raise DecisionRefusedError(f"the decision was refused: {reason}: {message}")
    return None


def _row(found: InReview, *, show_text: bool) -> dict[str, object]:
    sample = found.sample
    row: dict[str, object] = {
        "sample": sample.sample_id,
        "tenant": sample.tenant,
        "workload": sample.workload_id,
        "reasons": ", ".join(sample.reasons),
        "turns": len(sample.messages),
    }
    shown = "\n".join(f"{message.role}: {message.content}" for message in sample.messages)
    return {**row, "text": shown} if show_text else row


def _topics(settings: Settings) -> TopicReader:
    return TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
