"""`ctrainer doctor`: is this deployment healthy, and what weakens it."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from ctrainer.streams.console import print_rows
from ctrainer.streams.diagnosis import Health, diagnose
from ctrainer.streams.settings import Settings


def doctor(*, json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False) -> None:
    """Look at settings, services, topics, constitution, keys and machine; exit code 1 where something is bad."""
    findings = asyncio.run(diagnose(Settings.read()))
    print_rows("doctor", [asdict(finding) for finding in findings], as_json=json)
    if any(finding.health is Health.BAD for finding in findings):
        raise typer.Exit(1)
