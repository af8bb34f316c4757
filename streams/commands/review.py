"""`ctrainer review`: what waits for a person, and the person's word."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ctrainer.agents.revision_halts import halts
from ctrainer.schemas.compliance import SampleJudged
from ctrainer.schemas.review import ReviewDecision, ReviewVerdict
from ctrainer.schemas.revision import ResumeRevision, RevisionResumed
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, CONSTITUTION_EVENTS
from ctrainer.streams.active_constitution import reference_in_force
from ctrainer.streams.console import print_rows
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.keyring import read_signing_key
from ctrainer.streams.location import locate
from ctrainer.streams.review_list import InReview, sample_in_review, samples_in_review, shown
from ctrainer.streams.review_submitter import ReviewSubmitter
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader

app = typer.Typer(help="Read what waits for a person, and decide.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="one JSON object per line")]


@app.command("list")
def list_samples(
    *,
    show_text: Annotated[bool, typer.Option("--show-text", help="also print the conversations, redacted")] = False,
    limit: Annotated[int, typer.Option(min=1, help="how many to show at most")] = 100,
    json: Json = False,
) -> None:
    """Show the samples that wait for a person."""
    waiting = asyncio.run(_waiting(_topics(Settings.read()), limit + 1))
    print_rows("in review", [_row(found, show_text=show_text) for found in waiting[:limit]], as_json=json)
    if len(waiting) > limit:
        typer.echo(f"more than {limit} wait; --limit shows more of them", err=True)


@app.command()
def resume(
    *,
    reason: Annotated[str, typer.Option(help="why, for the record; what was mended")],
    key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="a private key for every tenant")
    ] = None,
    json: Json = False,
) -> None:
    """Lift every halt of a model that rewrites: it begins anew, with nothing held against it."""
    resumed = asyncio.run(_resume(Settings.read(), reason, key))
    rows = [{"partition": f"{one.topic}/{one.partition}", "model": one.model, "by": one.resumed_by} for one in resumed]
    print_rows("resumed", rows, as_json=json)


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


async def _waiting(topics: TopicReader, most: int) -> list[InReview]:
    found: list[InReview] = []
    async with aclosing(samples_in_review(topics)) as waiting:
        async for one in waiting:
            found.append(one)
            if len(found) == most:
                break
    return found


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
    submitter = ReviewSubmitter(topics=topics, key=read_signing_key(key) if key else None)
    return await submitter.submit_and_wait(decision, subject=sample_id, answer=SampleJudged, told_on=COMPLIANCE_EVENTS)


async def _resume(settings: Settings, reason: str, key: Path | None) -> list[RevisionResumed]:
    topics = _topics(settings)
    submitter = ReviewSubmitter(topics=topics, key=read_signing_key(key) if key else None)
    reference = await reference_in_force(settings, topics)
    resumed = []
    for halted in (await halts(topics)).values():
        word = ResumeRevision(
            kind="ResumeRevision",
            topic=halted.topic,
            partition=halted.partition,
            offset=halted.offset,
            model=halted.model,
            reason=reason,
            constitution=reference,
        )
        subject = f"{halted.topic}/{halted.partition}"
        _, answer = await submitter.submit_and_wait(
            word, subject=subject, answer=RevisionResumed, told_on=CONSTITUTION_EVENTS
        )
        resumed.append(answer)
    return resumed


def _row(found: InReview, *, show_text: bool) -> dict[str, object]:
    sample = found.sample
    row: dict[str, object] = {
        "sample": sample.sample_id,
        "tenant": sample.tenant,
        "workload": sample.workload_id,
        "reasons": ", ".join(sample.reasons),
        "turns": len(sample.messages),
        "since": datetime.fromtimestamp(found.since / 1000, UTC).isoformat(timespec="seconds"),
    }
    return {**row, "text": shown(sample)} if show_text else row


def _topics(settings: Settings) -> TopicReader:
    return TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
