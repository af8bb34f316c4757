"""`ctrainer adapters`: what was published, and which adapters serve which workload."""

import asyncio
from typing import Annotated
from uuid import uuid4

import typer

from ctrainer.agents.registry import read_shelf
from ctrainer.agents.releases import Shelf
from ctrainer.schemas.adapters import AdapterPublished, AdapterReleased
from ctrainer.schemas.privacy import PrivacyGuarantee
from ctrainer.schemas.training import CanaryAdapter, PromoteAdapter, RollbackAdapter
from ctrainer.streams.commands.submit import Json, Key, Tenant, send
from ctrainer.streams.console import print_rows
from ctrainer.streams.kafka_security import client_security
from ctrainer.streams.location import locate
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader

app = typer.Typer(help="Promote, try and roll back published adapters.", no_args_is_help=True)
Workload = Annotated[str, typer.Option(help="whose requests the adapter answers")]
Adapter = Annotated[str, typer.Option(help="the id of a published adapter")]


@app.command("list")
def list_adapters(
    *, tenant: Tenant, json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False
) -> None:
    """List the published adapters of a tenant, and what each serves."""
    settings = Settings.read()
    reader = TopicReader(bootstrap_servers=locate(settings).bootstrap_servers, security=client_security(settings))
    shelf = asyncio.run(read_shelf(reader, tenant))
    print_rows("adapters", [row(adapter, shelf) for adapter in shelf.adapters.values()], as_json=json)


@app.command()
def promote(*, tenant: Tenant, workload: Workload, adapter: Adapter, key: Key = None, json: Json = False) -> None:
    """Make an adapter the current one of a workload."""
    send(
        lambda reference: PromoteAdapter(
            request_id=uuid4(), tenant=tenant, workload=workload, adapter_id=adapter, constitution=reference
        ),
        key,
        as_json=json,
    )


@app.command()
def canary(
    *,
    tenant: Tenant,
    workload: Workload,
    adapter: Adapter,
    share: Annotated[float, typer.Option(help="share of the requests, between 0 and 1")] = 0.05,
    key: Key = None,
    json: Json = False,
) -> None:
    """Let an adapter answer a share of a workload's requests."""
    send(
        lambda reference: CanaryAdapter(
            request_id=uuid4(),
            tenant=tenant,
            workload=workload,
            adapter_id=adapter,
            share=share,
            constitution=reference,
        ),
        key,
        as_json=json,
    )


@app.command()
def rollback(*, tenant: Tenant, workload: Workload, key: Key = None, json: Json = False) -> None:
    """End the canary of a workload; without one, return to the adapter before the current one."""
    send(
        lambda reference: RollbackAdapter(request_id=uuid4(), tenant=tenant, workload=workload, constitution=reference),
        key,
        as_json=json,
    )


def row(adapter: AdapterPublished, shelf: Shelf) -> dict[str, object]:
    """Return one adapter as a row."""
    promised = adapter.guarantee
    serves = [place for release in shelf.releases.values() if (place := serving(adapter.adapter_id, release))]
    return {
        "adapter": adapter.adapter_id,
        "workloads": ", ".join(adapter.workloads),
        "serves": "; ".join(serves) or "nothing",
        "epsilon": round(promised.epsilon, 4) if isinstance(promised, PrivacyGuarantee) else promised.guarantee,
        "gate": "passed" if adapter.release.passed else ", ".join(adapter.release.reasons),
        "receipt": "signed" if adapter.receipt.signatures else "unsigned",
        "path": adapter.path,
    }


def serving(adapter_id: str, release: AdapterReleased) -> str | None:
    """Return what part of a workload an adapter serves, or None."""
    if release.current == adapter_id:
        return f"{release.workload}: current"
    if release.canary is not None and release.canary.adapter_id == adapter_id:
        return f"{release.workload}: canary {release.canary.share:.0%}"
    return None
