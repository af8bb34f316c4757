import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from ctrainer.streams.embedded import Services
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.trainer.tiny_model import save_tiny_model

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
    def service(self, name: str) -> Iterator[None]:
        """Run a worker or a trainer meanwhile."""
        with (self.folder / f"{name}.log").open("a") as log:
            process = subprocess.Popen([*CLI, name], env=self.environment, stderr=log)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0

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


@pytest.fixture
def deployment(own_broker: KafkaBroker, services: Services, tmp_path: Path) -> Iterator[Deployment]:
    environment = {
        **os.environ,  # noqa: TID251 - the program under test inherits the environment of its user
        "KAFKA_BOOTSTRAP_SERVERS": str(own_broker.bootstrap_servers),
        "REDIS_URL": services.redis_url,
        "CTRAINER_STATE_FOLDER": str(tmp_path),
        "CTRAINER_REQUESTERS": str(tmp_path / "keys" / "keyring.json"),
        "CTRAINER_WEB_PORT": "0",
    }
    found = Deployment(environment, tmp_path)
    found.run("topics", "apply")
    found.run("keys", "create", "root", "--tenant", "*")
    with found.service("worker"), found.service("trainer"):
        yield found


def test_what_the_gate_refuses_is_never_served_and_what_it_lets_out_can_be(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = save_tiny_model(tmp_path_factory.mktemp("model"), seed=7)
    deployment.run("produce", str(SAMPLES))
    with closing(deployment.events("compliance.events")) as events:
        assert len(list(islice(events, DECISIONS))) == DECISIONS
    seal = ("submit", "seal", "--workload", WORKLOAD)

    (blind,) = deployment.command(*seal, "--held-out-share", "0")
    *_, rejected, final = deployment.trained(model, blind["dataset_id"], "--mode", "single-pass-correlated")
    assert (final["state"], final["reason"]) == ("rejected", "gate-rejected")
    assert rejected["release"]["reasons"] == ["held-out-missing"]
    assert len(list(deployment.folder.glob(f"adapters/quarantine/{rejected['adapter_id']}/*/*.safetensors"))) == 1
    serve = ("--workload", WORKLOAD, "--adapter")
    deployment.command("adapters", "promote", *serve, rejected["adapter_id"], returncode=1)
    assert deployment.run("adapters", "list", "--tenant", TENANT) == []

    (sealed,) = deployment.command(*seal)
    *_, completed = deployment.trained(model, sealed["dataset_id"], "--unit", "user", "--whole-users")
    assert (completed["state"], completed["spent"]["unit"]) == ("completed", "user")
    (listed,) = deployment.run("adapters", "list", "--tenant", TENANT)
    assert (listed["gate"], listed["receipt"], listed["serves"]) == ("passed", "unsigned", "nothing")
    deployment.command("adapters", "promote", *serve, listed["adapter"])
    (listed,) = deployment.run("adapters", "list", "--tenant", TENANT)
    assert listed["serves"] == f"{WORKLOAD}: current"
    (rolled_back,) = deployment.command("adapters", "rollback", "--workload", WORKLOAD)
    assert (rolled_back["change"], rolled_back["current"]) == ("rolled-back", None)

    (receipt,) = deployment.folder.glob("adapters/*/*.receipt.json")
    deployment.run("receipt", "verify", str(receipt), returncode=1)
    (verified,) = deployment.run("receipt", "verify", str(receipt), "--unsafe-unsigned")
    assert verified["signed_by"] == "nobody"
