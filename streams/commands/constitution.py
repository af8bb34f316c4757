"""`ctrainer constitution`: check, compare and enact constitution documents."""

import asyncio
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from ctrainer.agents.compliance.comparison import changes
from ctrainer.agents.compliance.loading import ConstitutionError, load_constitution
from ctrainer.agents.compliance.policy import bundle_of
from ctrainer.agents.events import event_caused_by
from ctrainer.agents.records import Record
from ctrainer.schemas.constitution import Constitution, ConstitutionUpdated, UpdateOutcome
from ctrainer.schemas.envelope import binary_headers, event_type
from ctrainer.schemas.identity import canonical_bytes
from ctrainer.schemas.topics import CONSTITUTION_EVENTS, CONSTITUTION_UPDATES
from ctrainer.streams.active_constitution import read_constitution, reference_in_force
from ctrainer.streams.commands.evaluate import evaluate
from ctrainer.streams.console import print_json, print_rows
from ctrainer.streams.event_watch import watch
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.keyring import read_signing_key
from ctrainer.streams.location import locate
from ctrainer.streams.settings import Settings
from ctrainer.streams.signed_producer import SignedProducer
from ctrainer.streams.topic_reader import TopicReader

app = typer.Typer(help="Check, compare and enact constitutions.", no_args_is_help=True)
app.command("evaluate")(evaluate)
Document = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="a constitution as YAML or JSON")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object per line")]


@app.command()
def check(document: Document, *, json: Json = False) -> None:
    """Say whether a document can be used, with all its faults at once, and its digest."""
    constitution = _read(document, Settings.read())
    rules = [rule for principle in constitution.principles for rule in principle.rules]
    row = {
        "id": constitution.id,
        "version": constitution.version,
        "principles": len(constitution.principles),
        "rules": len(rules),
        "hash": constitution.governance_hash,
        "digest": constitution.digest,
    }
    print_rows("constitution", [row], as_json=json)


@app.command()
def diff(old: Document, new: Document, *, json: Json = False) -> None:
    """Show every place where two documents differ; exit code 1 where they do."""
    settings = Settings.read()
    found = changes(_named(old, settings), _named(new, settings))
    print_rows("differences", [{"place": place, "old": was, "new": now} for place, was, now in found], as_json=json)
    raise typer.Exit(1 if found else 0)


@app.command()
def show(*, json: Json = False) -> None:
    """Show the principles of the constitution that the settings name."""
    constitution = read_constitution(Settings.read())
    if json:
        print_json(constitution.model_dump(mode="json"))
        return
    rows = [
        {
            "principle": principle.id,
            "action": principle.action.value,
            "mode": principle.mode.value,
            "severity": principle.severity.value,
            "hazard": principle.hazard.value if principle.hazard else "",
            "rules": len(principle.rules),
            "statement": principle.statement,
        }
        for principle in constitution.principles
    ]
    print_rows(constitution.digest, rows, as_json=False)


@app.command()
def enact(
    document: Document,
    *,
    key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="a private key for every tenant")
    ] = None,
    json: Json = False,
) -> None:
    """Send a signed document to constitution.updates and wait for what becomes of it."""
    settings = Settings.read()
    constitution = _read(document, settings)
    outcome = asyncio.run(_enact(settings, constitution, key))
    print_rows("outcome", [outcome.model_dump(mode="json")], as_json=json)
    if outcome.outcome is UpdateOutcome.REFUSED:
        raise ConstitutionError(outcome.faults)


@app.command()
def bundle(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="where decision.rego and data.json go")],
    *,
    json: Json = False,
) -> None:
    """Write what an Open Policy Agent needs to decide for the constitution that the settings name."""
    made = bundle_of(read_constitution(Settings.read()))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "decision.rego").write_text(made.rego, encoding="utf-8")
    (folder / "data.json").write_bytes(canonical_bytes(made.documents()))
    print_rows("bundle", [{"folder": str(folder), "revision": made.revision}], as_json=json)


@app.command("in-force")
def in_force(*, json: Json = False) -> None:
    """Show hash and digest of the constitution that was enacted last."""
    settings = Settings.read()
    topics = TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
    print_rows("in force", [asyncio.run(reference_in_force(settings, topics)).model_dump()], as_json=json)


async def _enact(settings: Settings, constitution: Constitution, key: Path | None) -> ConstitutionUpdated:
    servers, security = locate(settings).bootstrap_servers, client_security(settings)
    producer = SignedProducer(bootstrap_servers=servers, key=read_signing_key(key) if key else None, security=security)
    headers = binary_headers({"type": event_type(Constitution), "subject": constitution.id})
    async with watch(TopicReader(bootstrap_servers=servers, security=security), [CONSTITUTION_EVENTS]) as events:
        place = await producer.send(
            CONSTITUTION_UPDATES, key=constitution.id.encode(), value=_enactment(constitution), headers=headers
        )

        def outcome(record: Record) -> ConstitutionUpdated | None:
            return event_caused_by(place, record, ConstitutionUpdated)

        return await events.first(outcome, within_seconds=60.0, what="outcome of the document")


def _enactment(constitution: Constitution) -> bytes:
    """Return a document as it has never been sent before: what is sent again is refused, and `x-` keys are no part."""
    return canonical_bytes({**constitution.model_dump(mode="json"), "x-enactment": str(uuid4())})


def _named(document: Path, settings: Settings) -> Constitution:
    """Return one of several documents; its faults name it."""
    try:
        return _read(document, settings)
    except ConstitutionError as error:
        raise ConstitutionError([f"{document}: {fault}" for fault in error.faults]) from error


def _read(document: Path, settings: Settings) -> Constitution:
    try:
        text = document.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConstitutionError([f"document: byte {error.start} is not UTF-8"]) from error
    return load_constitution(text, governance_hash=settings.governance_hash)
