import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from ctrainer.streams.embedded import Services
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.trainer.tiny_model import save_tiny_model
from tests.e2e.deployment import DECISIONS, SAMPLES, TENANT, WORKLOAD, Deployment


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
