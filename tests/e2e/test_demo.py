import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer

from ctrainer.agents.events import read_event
from ctrainer.agents.records import Record
from ctrainer.schemas.catalogue import CATALOGUE, Mode
from ctrainer.schemas.envelope import event_type
from ctrainer.schemas.privacy import BudgetGranted, LedgerRecord, PrivacyGuarantee
from ctrainer.schemas.topics import PRIVACY_LEDGER, TRAINING_PROGRESS
from ctrainer.schemas.training import FINAL_STATES, SessionAdvanced, SessionState
from ctrainer.streams import embedded
from ctrainer.streams.event_watch import watch
from ctrainer.streams.topic_reader import TopicReader
from ctrainer.trainer.adapter import folder_digest
from ctrainer.trainer.tiny_model import save_tiny_model

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "examples" / "flywheel.jsonl"
FIRST_BLOCK = 8


@pytest.fixture(scope="module")
def environment(services: embedded.Services, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    state = tmp_path_factory.mktemp("state")
    return {
        **os.environ,  # noqa: TID251 - the program under test inherits the environment of its user
        "KAFKA_BOOTSTRAP_SERVERS": services.bootstrap_servers,
        "REDIS_URL": services.redis_url,
        "CTRAINER_STATE_FOLDER": str(state),
    }


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), seed=7)


def start_demo(environment: Mapping[str, str], model: Path, *, steps: int = 12) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ctrainer.streams.cli", "demo", "--json", "--steps", str(steps)]
    command += ["--base-model", str(model), "--max-tokens", "1024", "--samples", str(SAMPLES)]
    return subprocess.Popen(
        command, env=dict(environment), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finished(demo: subprocess.Popen[str]) -> dict[str, dict[str, object]]:
    output, errors = demo.communicate(timeout=240)
    assert demo.returncode == 0, errors
    result: dict[str, dict[str, object]] = json.loads(output.splitlines()[-1])
    return result


def assert_balanced(samples: Mapping[str, object]) -> None:
    parts = [samples[name] for name in ("accepted", "redacted", "rejected", "dead")]
    assert all(isinstance(part, int) for part in parts)
    assert samples["in"] == sum(map(int, map(str, parts))) == 600


def children(parent: int, pattern: str) -> list[int]:
    """Return the pids of a process's children whose command line matches."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            status = (place / "stat").read_text().rpartition(")")[2].split()
            line = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if int(status[1]) == parent and re.search(pattern, line):
            found.append(int(place.name))
    return found


def lines_until(demo: subprocess.Popen[str], text: str) -> Iterator[str]:
    assert demo.stderr is not None
    for line in demo.stderr:
        yield line
        if text in line:
            return
    pytest.fail(f"the demo never said {text!r}")


async def test_the_demo_takes_samples_to_a_private_adapter_and_balances(
    environment: Mapping[str, str], tiny_model: Path
) -> None:
    result = await asyncio.to_thread(finished, start_demo(environment, tiny_model))

    assert_balanced(result["samples"])
    session, adapter = result["session"], result["adapter"]
    assert (session["status"], session["steps"]) == ("completed", 12)
    assert 0 < float(str(session["epsilon"])) <= 0.95 * 8
    assert (session["unit"], session["adjacency"]) == ("record", "add-remove")
    assert adapter["signed_by"] == "demo"
    assert adapter["digest"] == folder_digest(Path(str(adapter["path"])))
    assert_loads_with_plain_peft(Path(str(adapter["path"])), tiny_model)
    assert float(str(result["perplexity"]["base"])) > 1
    await asyncio.to_thread(assert_the_receipt_holds, environment, adapter)
    await assert_a_plain_client_reads_every_event_as_clean_json(environment["KAFKA_BOOTSTRAP_SERVERS"])


def assert_the_receipt_holds(environment: Mapping[str, str], adapter: Mapping[str, object]) -> None:
    members = json.loads(Path(str(adapter["receipt"]).replace(".receipt.", ".members.")).read_bytes())
    command = [sys.executable, "-m", "ctrainer.streams.cli", "receipt", "verify", str(adapter["receipt"]), "--json"]
    command += ["--adapter", str(adapter["path"]), "--sample", members["train"][0]["sample_id"]]
    command += ["--keys", f"{environment['CTRAINER_STATE_FOLDER']}/demo/keys/keyring.json"]
    verified = subprocess.run(command, env=dict(environment), text=True, capture_output=True, check=False)
    assert verified.returncode == 0, verified.stderr
    answer = json.loads(verified.stdout)
    assert (answer["signed_by"], answer["gate"], answer["sample"]) == ("demo", "passed", "trained on")
    command = [sys.executable, "-m", "ctrainer.streams.cli", "adapters", "list", "--tenant", "retail-prod-eu", "--json"]
    listed = subprocess.run(command, env=dict(environment), text=True, capture_output=True, check=True)
    assert answer["adapter_id"] in {json.loads(line)["adapter"] for line in listed.stdout.splitlines()}


def assert_loads_with_plain_peft(adapter: Path, base: Path) -> None:
    from peft import PeftModel  # noqa: PLC0415 - seconds, and only this test needs it
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - as above

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    moved = [weight for name, weight in model.named_parameters() if "lora_B" in name]
    assert moved
    assert all(bool(weight.any()) for weight in moved)


async def assert_a_plain_client_reads_every_event_as_clean_json(bootstrap_servers: str) -> None:
    topics = [name for name, content in CATALOGUE.items() if content.mode is Mode.STRUCTURED and content.in_use]
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
    )
    await consumer.start()
    seen: dict[str, set[str]] = {}
    while set(seen) != set(topics):
        for records in (await asyncio.wait_for(consumer.getmany(timeout_ms=5_000), 30)).values():
            for record in records:
                event = json.loads(record.value)
                assert event["specversion"] == "1.0"
                assert event["constitutionhash"] == "cdd01ef066bc6cf2"
                assert ("schema-version", b"1") in record.headers
                seen.setdefault(record.topic, set()).add(event["type"])
    await consumer.stop()
    assert "org.constitutional-trainer.SampleJudged.v1" in seen["compliance.events"]
    assert "org.constitutional-trainer.BudgetSpent.v1" in seen["privacy.events"]


def test_a_worker_killed_during_the_demo_is_replaced_and_the_table_balances(
    environment: Mapping[str, str], tiny_model: Path
) -> None:
    demo = start_demo(environment, tiny_model)
    list(lines_until(demo, "sending"))
    (worker,) = children(demo.pid, r"cli worker")
    os.kill(worker, signal.SIGKILL)

    result = finished(demo)

    assert_balanced(result["samples"])
    assert result["session"]["status"] == "completed"


async def test_a_session_killed_mid_training_goes_on_and_the_ledger_never_counts_too_little(
    environment: Mapping[str, str], tiny_model: Path
) -> None:
    reader = TopicReader(bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"])
    demo = start_demo(environment, tiny_model, steps=96)
    async with watch(reader, [TRAINING_PROGRESS]) as progress:
        session_id = await progress.first(training_session, within_seconds=120, what="first block of steps")
        (trainer,) = children(demo.pid, r"cli trainer")
        (session,) = children(trainer, r"training_session")
        os.kill(session, signal.SIGKILL)
        ended = await progress.first(partial(end_of, session_id), within_seconds=240, what="end of the session")
    await asyncio.to_thread(demo.communicate, timeout=60)

    # What the checks and the gate think of random weights does not matter here: the session went on, and was judged.
    assert ended.state in {SessionState.COMPLETED, SessionState.REJECTED}
    assert ended.reason in {None, "collapsed", "gate-rejected"}
    assert ended.step > FIRST_BLOCK
    grants = [entry async for entry in ledger_entries(reader) if entry.request.session_id == session_id]
    assert sum(grant.request.steps for grant in grants) >= ended.step
    assert len({grant.request.reservation_id for grant in grants}) == len(grants)
    spends = [grant.epsilon for grant in grants]
    assert spends == sorted(spends)
    assert isinstance(ended.spent, PrivacyGuarantee)
    assert ended.spent.epsilon == spends[-1]


def training_session(record: Record) -> str | None:
    """Return the id of a session that has finished a block of steps."""
    data = json.loads(record.value or b"{}")["data"]
    return str(data["session_id"]) if data.get("state") == "training" else None


def end_of(session_id: str, record: Record) -> SessionAdvanced | None:
    """Return the last word on a session."""
    if record.key != session_id.encode() or record.value is None:
        return None
    if json.loads(record.value)["type"] != event_type(SessionAdvanced):
        return None
    advanced = read_event(record.value, SessionAdvanced)
    return advanced if advanced.state in FINAL_STATES else None


async def ledger_entries(reader: TopicReader) -> AsyncIterator[BudgetGranted]:
    async for record in reader.read_topic(PRIVACY_LEDGER):
        entry = read_event(record.value, LedgerRecord).entry
        if isinstance(entry, BudgetGranted):
            yield entry
