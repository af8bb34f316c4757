import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from aiokafka import AIOKafkaProducer

from ctrainer.agents.events import event_record
from ctrainer.agents.records import Record
from ctrainer.schemas.revision import CollapseMeasure, RevisionHalted
from ctrainer.schemas.topics import CONSTITUTION_EVENTS, SAMPLES_SLOW_LANE
from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.embedded import Services
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.embedded.ports import free_port
from ctrainer.streams.settings import Settings
from ctrainer.trainer.tiny_model import save_tiny_model
from tests.e2e.test_slow_lane import Deployment, deploy, logged

QUESTION = "Where is my parcel?"
INSULT_BESIDE_AN_ANSWER = "You are such an idiot. The parcel for Anna comes to Rome on Monday."
NOTHING_BUT_AN_INSULT = "You are such an idiot and the parcel for Anna comes to Rome on Monday"
HARMLESS = "It comes on Monday."


@pytest.fixture
def deployment(own_broker: KafkaBroker, services: Services, tmp_path: Path) -> Deployment:
    model = str(save_tiny_model(tmp_path / "model", seed=1))
    return deploy(own_broker, services, tmp_path, CTRAINER_REVISION_MODEL=model, CTRAINER_WEB_PORT=str(free_port()))


async def halt(deployment: Deployment) -> int:
    """Leave what a worker leaves whose model has collapsed on every partition; return how many there are."""
    settings = Settings.read(deployment.environment)
    reference = read_constitution(settings).reference()
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers) as producer:
        for partition in range(settings.partitions):
            halted = RevisionHalted(
                topic=SAMPLES_SLOW_LANE,
                partition=partition,
                offset=0,
                model=settings.revision_model,
                measure=CollapseMeasure.REFUSALS,
                before=0.0,
                after=1.0,
                constitution=reference,
            )
            cause = Record(topic=halted.topic, partition=partition, offset=0, timestamp=0, key=None, value=None)
            event = event_record(
                topic=CONSTITUTION_EVENTS, key=str(partition), data=halted, cause=cause, constitution=reference
            )
            await producer.send_and_wait(event.topic, key=event.key, value=event.value)
    return settings.partitions


def until(holds: Callable[[], bool], *, seconds: float) -> bool:
    """Return whether what another process brings about holds within so many seconds; it sends no event to wait for."""
    end = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def until_halted(deployment: Deployment, partitions: int) -> None:
    """Wait until a worker says that it revises nothing of so many partitions."""
    url = f"http://127.0.0.1:{deployment.environment['CTRAINER_WEB_PORT']}/health"

    def knows() -> bool:
        # Not all is ready at first, and nobody listens at the very first.
        with suppress(OSError), urlopen(url, timeout=5) as page:
            return len(json.load(page)["revision_halted"]) == partitions
        return False

    assert until(knows, seconds=60), "the worker knows of no halt"


def child_of(pid: int) -> int:
    """Wait until a process has a child, and return its process id."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    assert until(lambda: bool(children.read_text()), seconds=120), "the worker has started no model"
    return int(children.read_text().split()[0])


def test_what_a_halt_of_an_earlier_worker_kept_is_revised_or_read_by_a_person_though_the_model_is_killed_at_work(
    deployment: Deployment,
) -> None:
    partitions = asyncio.run(halt(deployment))
    worker = deployment.start_worker("screening,slow-lane,revision")
    until_halted(deployment, partitions)
    answers = (INSULT_BESIDE_AN_ANSWER, NOTHING_BUT_AN_INSULT, HARMLESS)
    deployment.produce_records(logged(QUESTION, answer) for answer in answers)
    assert len(deployment.judged(3)) == 3
    key = str(deployment.folder / "keys" / "root.pem")
    assert len(deployment.run("review", "resume", "--reason", "mended", "--key", key, "--json")) == partitions
    os.kill(child_of(worker.pid), signal.SIGKILL)
    judged = deployment.judged(5)
    last = {event["sample_id"]: event for event in sorted(judged, key=lambda event: event["attempt"])}
    assert sorted(event["verdict"] for event in last.values()) == ["accept", "review", "revised"]
    assert len(judged) == 5

    (balance,) = deployment.run("balance", "--json")
    assert (balance["revised"], balance["in_review"], balance["accepted"], balance["balances"]) == (1, 1, 1, True)

    (sample,) = [line["value"] for line in deployment.run("tail", "samples.accepted") if line["value"].get("revision")]
    assert sample["messages"][1]["content"] == "The parcel for Anna comes to Rome on Monday."
    assert sample["revision"]["principles"] == ["harassment"]
    assert sample["revision"]["model"] is None
    (pair,) = [line["value"] for line in deployment.run("tail", "samples.preferences")]
    assert [pair[side][1]["content"] for side in ("chosen", "rejected")] == [
        sample["messages"][1]["content"],
        INSULT_BESIDE_AN_ANSWER,
    ]
    (waiting,) = deployment.run("review", "list", "--show-text", "--json")
    assert NOTHING_BUT_AN_INSULT in waiting["text"]
    assert "revision:" in waiting["reasons"]

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
