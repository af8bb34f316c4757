"""A deployment as its user sees it: commands, a worker, and trainers, all of them real processes."""

import json
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "examples" / "flywheel.jsonl"
CLI = [sys.executable, "-m", "ctrainer.streams.cli"]
TENANT, WORKLOAD = "retail-prod-eu", "support_agent.order_tools"
DECISIONS = 588
"""Of the 600 samples, those that are no dead letters."""


class Deployment:
    """A user's shell: `ctrainer` commands of one tenant against one deployment."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self.folder = folder

    def run(self, *arguments: str, returncode: int = 0) -> list[dict[str, Any]]:
        """Run a command to its end and return what it printed, line by line."""
        done = subprocess.run(
            [*CLI, *arguments, "--json"], env=self.environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == returncode, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def command(self, *arguments: str, returncode: int = 0) -> list[dict[str, Any]]:
        """Run a signed command for the tenant."""
        key = str(self.folder / "keys" / "root.pem")
        return self.run(*arguments, "--tenant", TENANT, "--key", key, returncode=returncode)

    @contextmanager
    def service(self, name: str, *arguments: str) -> Iterator[int]:
        """Run a worker or a trainer meanwhile, and yield its process id."""
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen([*CLI, name, *arguments], env=self.environment, stderr=log)
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(timeout=120)
        assert status == 0

    def events(self, topic: str) -> Generator[dict[str, Any], None, None]:
        """Yield the events of a topic as they come."""
        with subprocess.Popen(
            [*CLI, "tail", topic, "--follow"], env=self.environment, stdout=subprocess.PIPE, text=True
        ) as tail:
            assert tail.stdout is not None
            try:
                yield from (json.loads(line)["value"] for line in tail.stdout)
            finally:
                tail.send_signal(signal.SIGINT)

    def trained(self, model: Path, dataset: str, *how: str) -> list[dict[str, Any]]:
        """Train a few steps, and return what was said of the session, up to its final state."""
        ask = ("submit", "train", "--dataset", dataset, "--base-model", str(model), "--objective", "dapt")
        (assignment,) = self.command(*ask, "--steps", "4", "--population", dataset, *how)
        said: list[dict[str, Any]] = []
        with closing(self.events("training.progress")) as events:
            for event in events:
                if event["data"].get("session_id") == assignment["session_id"]:
                    said.append(event["data"])
                if said and said[-1].get("state") in {"completed", "rejected", "failed", "halted"}:
                    break
        return said
