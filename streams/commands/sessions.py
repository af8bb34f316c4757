"""`ctrainer sessions`: every training session and where it is; pause, resume and cancel by signed commands."""

import asyncio
from contextlib import nullcontext, suppress
from typing import Annotated
from uuid import uuid4

import orjson
import typer
from rich.console import Console

from ctrainer.agents.records import Record
from ctrainer.agents.sessions import Sessions
from ctrainer.schemas.envelope import event_type
from ctrainer.schemas.privacy import PrivacyGuarantee
from ctrainer.schemas.topics import TRAINING_ASSIGNMENTS, TRAINING_PROGRESS
from ctrainer.schemas.training import (
    FINAL_STATES,
    CancelTraining,
    PauseTraining,
    ResumeTraining,
    SessionAdvanced,
    SessionCommand,
    SessionProgressed,
)
from ctrainer.streams import session_cleanup as cleanup
from ctrainer.streams.commands.submit import Json, Key, Tenant, send
from ctrainer.streams.console import print_json, print_rows
from ctrainer.streams.event_watch import watch
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import locate
from ctrainer.streams.session_bars import SessionBars
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.trainer.abandoned import Retention

app = typer.Typer(
    help="List the training sessions; pause, resume and cancel them; clean up after them.", invoke_without_command=True
)
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="the id of the session")]


@app.callback()
def sessions(
    context: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="show live progress until interrupted")] = False,
    json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """List the training sessions, each with its newest state."""
    if context.invoked_subcommand is not None:
        return
    settings = Settings.read()
    reader = TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
    if follow:
        with suppress(KeyboardInterrupt):
            asyncio.run(_follow(reader, as_json=json))
        return
    newest = asyncio.run(newest_states(reader))
    print_rows("sessions", [row(advanced) for advanced in newest.values()], as_json=json)


@app.command()
def pause(session: SessionId, *, tenant: Tenant, key: Key = None, json: Json = False) -> None:
    """Let a session rest after its present step; its place goes to another one."""
    _send(PauseTraining, session, tenant, key, as_json=json)


@app.command()
def resume(session: SessionId, *, tenant: Tenant, key: Key = None, json: Json = False) -> None:
    """Let a paused session go on where it was."""
    _send(ResumeTraining, session, tenant, key, as_json=json)


@app.command()
def cancel(session: SessionId, *, tenant: Tenant, key: Key = None, json: Json = False) -> None:
    """Stop a session for good; what it spent stays spent."""
    _send(CancelTraining, session, tenant, key, as_json=json)


@app.command()
def clean(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
    quarantine_days: Annotated[float, typer.Option(min=0, help="days that a quarantined adapter stays")] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """Remove the checkpoints of ended and forgotten sessions, old quarantined adapters, and half-written files."""
    settings = Settings.read()
    reader = TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
    retention = Retention(quarantined=quarantine_days * 86_400)
    removed = cleanup.clean(settings, asyncio.run(read_sessions(reader)), retention, dry_run=dry_run)
    print_rows(
        "would be removed" if dry_run else "removed",
        [{"path": str(gone.path), "bytes": gone.bytes} for gone in removed],
        as_json=json,
    )


async def read_sessions(reader: TopicReader) -> Sessions:
    """Return the table of all sessions."""
    table = Sessions()
    for topic in (TRAINING_ASSIGNMENTS, TRAINING_PROGRESS):
        async for record in reader.read_topic(topic):
            table = table.after(record)
    return table


def _send(command: type[SessionCommand], session: str, tenant: str, key: Key, *, as_json: bool) -> None:
    send(
        lambda reference: command(request_id=uuid4(), tenant=tenant, session_id=session, constitution=reference),
        key,
        as_json=as_json,
    )


async def _follow(reader: TopicReader, *, as_json: bool) -> None:
    """Show every session that goes on, and each that comes, for ever."""
    async with watch(reader, [TRAINING_PROGRESS]) as events:
        going = [advanced for advanced in (await newest_states(reader)).values() if advanced.state not in FINAL_STATES]
        with nullcontext() if as_json else SessionBars(Console()) as bars:
            for advanced in going:
                _show(advanced, bars)
            async for record in events.records():
                news = news_of(record)
                if news is not None:
                    _show(news, bars)


def _show(news: SessionAdvanced | SessionProgressed, bars: SessionBars | None) -> None:
    if bars is None:
        print_json({"event": type(news).__name__, **news.model_dump(mode="json")})
    else:
        bars.show(news)


def news_of(record: Record) -> SessionAdvanced | SessionProgressed | None:
    """Return what a record says about how far a session is, or None where it says something else."""
    envelope = orjson.loads(record.value or b"{}")
    for kind in (SessionAdvanced, SessionProgressed):
        if envelope.get("type") == event_type(kind):
            return kind.model_validate(envelope["data"])
    return None


async def newest_states(reader: TopicReader) -> dict[str, SessionAdvanced]:
    """Return the newest state of each session by its id, oldest session first."""
    newest: dict[str, SessionAdvanced] = {}
    async for record in reader.read_topic(TRAINING_PROGRESS):
        data = orjson.loads(record.value or b"{}")["data"]
        if "state" in data:
            advanced = SessionAdvanced.model_validate(data)
            newest[advanced.session_id] = advanced
    return newest


def row(advanced: SessionAdvanced) -> dict[str, object]:
    """Return one session as a row."""
    spent = advanced.spent
    return {
        "session": advanced.session_id,
        "tenant": advanced.tenant,
        "state": advanced.state.value,
        "step": f"{advanced.step}/{advanced.steps}",
        "epsilon": round(spent.epsilon, 4) if isinstance(spent, PrivacyGuarantee) else spent and spent.guarantee,
        "delta": spent.delta if isinstance(spent, PrivacyGuarantee) else None,
        "reason": advanced.reason,
    }
