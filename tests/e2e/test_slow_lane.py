import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.streams.embedded import Services
from ctrainer.streams.embedded.kafka import KafkaBroker

CLI = [sys.executable, "-m", "ctrainer.streams.cli"]
QUESTIONS = ("Where is my parcel?", "Never hire pregnant women for this job. My SSN is 219-09-9999")


class Deployment:
    """A user's shell: `ctrainer` commands against one deployment."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self.folder = folder

    def run(self, *arguments: str, returncode: int = 0) -> list[dict[str, Any]]:
        """Run a command to its end and return what it printed, line by line."""
        done = subprocess.run(
            [*CLI, *arguments], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == returncode, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start_worker(self, roles: str = "screening,slow-lane,constitution") -> subprocess.Popen[str]:
        """Start a worker; it goes on until it is told to end."""
        command = [*CLI, "worker", "--roles", roles]
        with (self.folder / "worker.log").open("a") as log:
            return subprocess.Popen(command, env=self.environment, text=True, stderr=log)

    def produce(self, *questions: str) -> None:
        """Send samples."""
        self.produce_records(map(logged, questions))

    def produce_records(self, records: Iterable[bytes]) -> None:
        """Send records."""
        path = self.folder / "samples.jsonl"
        path.write_bytes(b"\n".join(records))
        self.run("produce", str(path), "--json")

    def judged(self, count: int) -> list[dict[str, Any]]:
        """Wait until there are `count` decisions and return them: no order holds across partitions."""
        command = [*CLI, "tail", "compliance.events", "--follow"]
        with subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True) as tail:
            assert tail.stdout is not None
            events = [json.loads(tail.stdout.readline())["value"]["data"] for _ in range(count)]
            tail.send_signal(signal.SIGINT)
        return events


def logged(question: str, answer: str = "I see.") -> bytes:
    return json.dumps(
        {
            "timestamp": 1,
            "client_id": "shop",
            "workload_id": "desk",
            "request": {"messages": [{"role": "user", "content": question}], "model": "m"},
            "response": {"choices": [{"message": {"role": "assistant", "content": answer}}]},
        }
    ).encode()


def deploy(broker: KafkaBroker, services: Services, folder: Path, **settings: str) -> Deployment:
    """Return a deployment with topics and a key, and no worker yet."""
    environment = {
        **os.environ,  # noqa: TID251 - the program under test inherits the environment of its user
        "KAFKA_BOOTSTRAP_SERVERS": str(broker.bootstrap_servers),
        "REDIS_URL": services.redis_url,
        "CTRAINER_STATE_FOLDER": str(folder),
        "CTRAINER_WEB_PORT": "0",
        "CTRAINER_REQUESTERS": str(folder / "keys" / "keyring.json"),
        **settings,
    }
    found = Deployment(environment, folder)
    found.run("topics", "apply", "--json")
    found.run("keys", "create", "root", "--tenant", "*", "--json")
    return found


@pytest.fixture
def deployment(own_broker: KafkaBroker, services: Services, tmp_path: Path) -> Iterator[Deployment]:
    found = deploy(own_broker, services, tmp_path)
    worker = found.start_worker()
    yield found
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0


def test_a_person_decides_and_a_new_constitution_comes_into_force_on_a_running_worker(deployment: Deployment) -> None:
    key = str(deployment.folder / "keys" / "root.pem")
    deployment.produce(*QUESTIONS)
    judged = {event["verdict"] for event in deployment.judged(2)}
    assert judged == {"accept", "review"}

    (waiting,) = deployment.run("review", "list", "--show-text", "--json")
    assert "<SSN_1>" in waiting["text"]
    decide = ("review", "decide", waiting["sample"], "accept", "--reason", "a quote", "--key", key, "--json")
    deployment.run(*decide)
    (by_person,) = [event for event in deployment.judged(3) if event["decided_by"] == "person"]
    assert (by_person["sample_id"], by_person["verdict"], by_person["reasons"]) == (
        waiting["sample"],
        "accept",
        ["reviewer:root"],
    )
    assert deployment.run("review", "list", "--json") == []

    document = json.loads(default_constitution().to_json()) | {"version": "parcels"}
    rule = {"id": "parcel", "label": "PARCEL", "pattern": "parcel"}
    document["principles"].append(
        {"id": "parcels", "statement": "No parcels.", "severity": "low", "action": "reject", "rules": [rule]}
    )
    path = deployment.folder / "constitution.json"
    path.write_text(json.dumps(document))
    (outcome,) = deployment.run("constitution", "enact", str(path), "--key", key, "--json")
    (in_force,) = deployment.run("constitution", "in-force", "--json")
    assert outcome["outcome"] == "enacted"
    assert outcome["constitution"] == in_force

    decided = deployment.judged(3)
    while not any(event["reasons"] == ["parcels"] for event in decided):
        deployment.produce(QUESTIONS[0])
        decided = deployment.judged(len(decided) + 1)
    events = [line["value"] for line in deployment.run("tail", "constitution.events")]
    boundaries = [event["data"] for event in events if ".ConstitutionInForce." in event["type"]]
    (boundary,) = [found["from_offset"] for found in boundaries if found["constitution"] == in_force]
    first_hand = [event for event in decided if event["attempt"] == 0]
    assert {event["source"]["offset"] for event in first_hand if event["reasons"] == ["parcels"]} == {
        event["source"]["offset"] for event in first_hand if event["source"]["offset"] >= boundary
    }

    deployment.run("constitution", "enact", str(path), "--json", returncode=1)
