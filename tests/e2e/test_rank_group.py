"""A session of two ranks, whose leader dies, trains the adapter of a session of one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from safetensors.torch import load_file

from ctrainer.agents.events import read_event
from ctrainer.schemas.privacy import BudgetGranted, LedgerRecord
from ctrainer.schemas.topics import PRIVACY_LEDGER
from ctrainer.schemas.training import (
    Objective,
    OptimizerSettings,
    PrivacySettings,
    TrainAdapter,
    TrainingAssignment,
)
from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.command_submitter import CommandSubmitter
from ctrainer.streams.embedded import Services
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.keyring import read_signing_key
from ctrainer.streams.settings import Settings
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.trainer.tiny_model import save_tiny_model
from tests.e2e.deployment import DECISIONS, SAMPLES, TENANT, WORKLOAD, Deployment

STEPS = 48
FINAL = {"completed", "rejected", "failed", "halted"}


@pytest.fixture
def deployment(own_broker: KafkaBroker, services: Services, tmp_path: Path) -> Deployment:
    environment = {
        **os.environ,  # noqa: TID251 - the program under test inherits the environment of its user
        "KAFKA_BOOTSTRAP_SERVERS": str(own_broker.bootstrap_servers),
        "REDIS_URL": services.redis_url,
        "CTRAINER_STATE_FOLDER": str(tmp_path),
        "CTRAINER_REQUESTERS": str(tmp_path / "keys" / "keyring.json"),
        "CTRAINER_WEB_PORT": "0",
        "CTRAINER_UNSAFE_ALLOW_SEEDED_NOISE": "true",
        "OMP_NUM_THREADS": "1",
    }
    found = Deployment(environment, tmp_path)
    found.run("topics", "apply")
    found.run("keys", "create", "root", "--tenant", "*")
    return found


def sealed(deployment: Deployment) -> Mapping[str, object]:
    deployment.run("produce", str(SAMPLES))
    with closing(deployment.events("compliance.events")) as events:
        assert len(list(islice(events, DECISIONS))) == DECISIONS
    (answer,) = deployment.command("submit", "seal", "--workload", WORKLOAD)
    return answer


async def assigned(deployment: Deployment, dataset: Mapping[str, object], model: Path, population: str) -> str:
    """Ask for a seeded training and return the id of its session."""
    submitter = CommandSubmitter(
        bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"],
        key=read_signing_key(deployment.folder / "keys" / "root.pem"),
    )
    command = TrainAdapter(
        request_id=uuid4(),
        tenant=TENANT,
        dataset_id=str(dataset["dataset_id"]),
        constitution=read_constitution(Settings.read(deployment.environment)).reference(),
        base_model=str(model),
        objective=Objective.DAPT,
        privacy=PrivacySettings(population=population, unsafe_seed=5),
        optimizer=OptimizerSettings(steps=STEPS, learning_rate=1e-2),
    )
    answer = await submitter.submit_and_wait(command, within_seconds=240)
    assert isinstance(answer, TrainingAssignment)
    return answer.session_id


def ranks_of(trainer: int) -> dict[int, int]:
    """Return the process ids of the ranks that a trainer has running, by rank."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (place / "environ").read_bytes().split(b"\0")
            ranks = [int(entry.removeprefix(b"RANK=")) for entry in environment if entry.startswith(b"RANK=")]
            if ranks and trainer in ancestors(int(place.name)):
                found[ranks[0]] = int(place.name)
    return found


def ancestors(pid: int) -> list[int]:
    found: list[int] = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def end_of(deployment: Deployment, session: str, trainer: int, *, kill: tuple[int, ...] = ()) -> str:
    """Return the final state of a session whose ranks `kill` die, one after each block that is told."""
    doomed, killed_at = list(kill), -1
    with closing(deployment.events("training.progress")) as events:
        for event in events:
            data = event["data"]
            if data.get("session_id") != session:
                continue
            if data.get("state") in FINAL:
                assert not doomed
                return str(data["state"])
            if doomed and data.get("state") == "training" and data["step"] > killed_at:
                os.kill(ranks_of(trainer)[doomed.pop(0)], signal.SIGKILL)
                killed_at = data["step"]
    raise AssertionError("no final state")


async def granted(deployment: Deployment, population: str) -> AsyncIterator[BudgetGranted]:
    reader = TopicReader(bootstrap_servers=deployment.environment["KAFKA_BOOTSTRAP_SERVERS"])
    async for record in reader.read_topic(PRIVACY_LEDGER):
        entry = read_event(record.value, LedgerRecord)
        if entry.scope == f"{TENANT}/{population}" and isinstance(entry.entry, BudgetGranted):
            yield entry.entry


def weights(folder: Path, session: str) -> torch.Tensor:
    (checkpoint,) = folder.glob(f"sessions/{session}/checkpoints/step-{STEPS:09d}/tensors.safetensors")
    tensors = sorted(load_file(checkpoint).items())
    return torch.cat([tensor.flatten() for name, tensor in tensors if name.startswith("weight/")])


@pytest.mark.timeout(900)
async def test_two_ranks_whose_leader_dies_train_the_adapter_of_one_and_the_ledger_counts_enough(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = save_tiny_model(tmp_path_factory.mktemp("model"), seed=7)
    sessions = {}
    with deployment.service("worker"):
        dataset = await asyncio.to_thread(sealed, deployment)
        for name, options, kill in [("one", (), ()), ("two", ("--ranks", "2"), (0,))]:
            with deployment.service("trainer", *options) as trainer:
                sessions[name] = await assigned(deployment, dataset, model, name)
                state = await asyncio.to_thread(end_of, deployment, sessions[name], trainer, kill=kill)
                assert state in {"completed", "rejected"}
    one, two = (weights(deployment.folder, sessions[name]) for name in ("one", "two"))
    assert float((two - one).norm() / one.norm()) <= 1e-5
    grants = [grant async for grant in granted(deployment, "two")]
    charged = [step for grant in grants for step in range(grant.request.first_step, grant.request.first_step + 8)]
    assert set(charged) == set(range(STEPS))
    # The death interrupts a granted block, which is granted anew.
    assert len(charged) >= STEPS + 8
    assert len({grant.request.reservation_id for grant in grants}) == len(grants)
