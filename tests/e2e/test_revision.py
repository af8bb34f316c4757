import os
import signal
import time
from pathlib import Path

import pytest

from ctrainer.streams.embedded import Services
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.trainer.tiny_model import save_tiny_model
from tests.e2e.test_slow_lane import Deployment, deploy, logged

QUESTION = "Where is my parcel?"
INSULT_BESIDE_AN_ANSWER = "You are such an idiot. The parcel for Anna comes to Rome on Monday."
NOTHING_BUT_AN_INSULT = "You are such an idiot and the parcel for Anna comes to Rome on Monday"
HARMLESS = "It comes on Monday."


@pytest.fixture
def deployment(own_broker: KafkaBroker, services: Services, tmp_path: Path) -> Deployment:
    model = save_tiny_model(tmp_path / "model", seed=1)
    return deploy(own_broker, services, tmp_path, CTRAINER_REVISION_MODEL=str(model))


def child_of(pid: int) -> int:
    """Wait until a process has a child, and return its process id."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = children.read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.01)
    raise AssertionError("the worker has started no model")


def test_answers_are_revised_or_read_by_a_person_though_the_model_is_killed_at_work(deployment: Deployment) -> None:
    worker = deployment.start_worker("screening,revision")
    answers = (INSULT_BESIDE_AN_ANSWER, NOTHING_BUT_AN_INSULT, HARMLESS)
    deployment.produce_records(logged(QUESTION, answer) for answer in answers)
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
