"""`ctrainer demo`: the whole main job on this machine."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from ctrainer.streams import embedded
from ctrainer.streams.active_constitution import constitution_reference
from ctrainer.streams.console import Reporter, print_json, print_table
from ctrainer.streams.demo import Demo
from ctrainer.streams.demo_result import DemoResult
from ctrainer.streams.settings import Settings


def demo(
    *,
    samples: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="flywheel records to send")] = Path(
        "examples/flywheel.jsonl"
    ),
    steps: Annotated[int, typer.Option(min=1, help="private optimizer steps")] = 40,
    base_model: Annotated[str, typer.Option(help="a hub name or a path")] = "SmolLM2-135M-Instruct",
    max_tokens: Annotated[int, typer.Option(min=8, help="tokens of a sample that are trained on")] = 128,
    json: Annotated[bool, typer.Option("--json", help="end with one JSON object")] = False,
) -> None:
    """Watch it happen: real Kafka, real model, from logged samples to a private adapter, ending with a table."""
    settings = Settings.read()
    with Reporter() as reporter:
        services = embedded.up(
            cache_folder=settings.cache_folder,
            state_folder=settings.state_folder,
            bootstrap_servers=settings.kafka_bootstrap_servers,
            redis_url=settings.redis_url,
            report=reporter.say,
        )
        located = {"kafka_bootstrap_servers": services.bootstrap_servers, "redis_url": services.redis_url}
        run = Demo(
            settings=settings.model_copy(update=located),
            folder=settings.state_folder / "demo",
            samples=samples,
            constitution=constitution_reference(settings),
            steps=steps,
            base_model=base_model,
            max_tokens=max_tokens,
            report=reporter,
        )
        result = asyncio.run(run.run())
    if json:
        print_json(result.model_dump(mode="json", by_alias=True))
    else:
        show(result, services.bootstrap_servers)
    if not result.samples.balanced:
        raise typer.Exit(1)


def show(result: DemoResult, bootstrap_servers: str) -> None:
    """Print the result as a table, with where to look next."""
    samples, session, perplexity = result.samples, result.session, result.perplexity
    balance = "balances" if samples.balanced else "DOES NOT BALANCE"
    parts = f"{samples.accepted} + {samples.redacted} + {samples.rejected} + {samples.dead}: {balance}"
    spent = f"epsilon {session.epsilon:.3f}, delta {session.delta:g}"
    rows = [
        ("samples in", samples.received),
        ("= accepted + redacted + rejected + dead", parts),
        ("duplicates left out of the dataset", samples.duplicates),
        ("session", f"{session.id}: {session.status}, {session.steps} steps"),
        ("privacy spent", f"{spent}, unit {session.unit}, adjacency {session.adjacency}"),
        ("adapter", f"{result.adapter.path} ({result.adapter.digest})"),
        ("perplexity on held-out samples", f"base {perplexity.base:.2f}, adapted {perplexity.adapted:.2f}"),
        ("its receipt", f"signed by {result.adapter.signed_by}, verified offline"),
        ("verify it", f"ctrainer receipt verify {result.adapter.receipt} --adapter {result.adapter.path}"),
        ("look next", "ctrainer tail compliance.events; ctrainer tail audit.events; ctrainer sessions"),
        ("Kafka", f"{bootstrap_servers} (ctrainer services down stops it)"),
    ]
    print_table("the demo", ["what", "result"], rows)
