import asyncio
import os
import secrets
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from ctrainer.agents.events import read_event
from ctrainer.schemas.adapters import AdapterPublished
from ctrainer.schemas.topics import ADAPTERS_PUBLISHED, PRIVACY_LEDGER
from ctrainer.schemas.training import CancelTraining, PauseTraining, ResumeTraining, SessionState
from ctrainer.streams.active_constitution import read_constitution
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.settings import Settings
from ctrainer.trainer.tiny_model import save_tiny_model
from tests.faults.fleet import Fleet, Kills
from tests.faults.spend_proof import Ledger, drawn_steps, read_ledger, verify_adapters

_ENDS = {SessionState.COMPLETED, SessionState.REJECTED, SessionState.HALTED}


@pytest.fixture
def fleet(own_broker: KafkaBroker, tmp_path: Path) -> Fleet:
    settings = Settings(
        kafka_bootstrap_servers=str(own_broker.bootstrap_servers),
        cache_folder=tmp_path / "cache",
        state_folder=tmp_path / "state",
        session_timeout_ms=2_000,
        unsafe_accept_unsigned=True,
        unsafe_allow_seeded_noise=True,
        web_port=0,
    )
    return Fleet(
        settings=settings,
        folder=tmp_path,
        model=save_tiny_model(tmp_path / "model", seed=1),
        constitution=read_constitution(settings).reference(),
    )


async def _ledger(fleet: Fleet) -> Ledger:
    return read_ledger([record.value async for record in fleet.reader().read_topic(PRIVACY_LEDGER)])


async def _published(fleet: Fleet) -> list[AdapterPublished]:
    records = fleet.reader().read_topic(ADAPTERS_PUBLISHED)
    return [read_event(record.value, AdapterPublished) async for record in records]


async def _kill_and_time(fleet: Fleet, session_id: str) -> float:
    """Kill a session's process; return the seconds until another one draws the noise of its next step."""
    (process,) = fleet.processes(session_id)
    os.kill(process, signal.SIGKILL)
    killed, drawn = time.monotonic(), fleet.drawn(session_id)
    while fleet.drawn(session_id) <= drawn:  # noqa: ASYNC110 - another process cannot set our event
        await asyncio.sleep(0.01)
    return time.monotonic() - killed


async def test_a_session_that_was_killed_stopped_or_paused_gives_the_adapter_of_one_that_was_not(
    fleet: Fleet,
) -> None:
    async with fleet.running():
        dataset = await fleet.seal()
        names = ("whole", "killed", "stopped", "paused", "cancelled")
        ids = {
            name: (await fleet.train(dataset, population=name, steps=40, unsafe_seed=7)).session_id for name in names
        }
        await fleet.reached(ids["cancelled"], 8)
        await fleet.steer(CancelTraining, ids["cancelled"])
        await fleet.reached(ids["paused"], 8)
        await fleet.steer(PauseTraining, ids["paused"])
        await fleet.reached(ids["stopped"], 8)
        for process in fleet.processes(ids["stopped"]):
            os.kill(process, signal.SIGTERM)
        await fleet.reached(ids["killed"], 8)
        seconds = await _kill_and_time(fleet, ids["killed"])
        print(f"resumed {seconds:.1f} s after SIGKILL")  # noqa: T201 - a measured number

        await fleet.told(ids["paused"], lambda newest: newest.state is SessionState.PAUSED)
        assert fleet.processes(ids["paused"]) == []
        await fleet.steer(ResumeTraining, ids["paused"])
        ends = {name: (await fleet.ended(session_id)).newest for name, session_id in ids.items()}
        ledger, published = await _ledger(fleet), await _published(fleet)

    drawn = drawn_steps(fleet.witness)
    ledger.verify(drawn)
    states = {name: newest.state for name, newest in ends.items() if newest}
    whole = {name: SessionState.COMPLETED for name in names if name != "cancelled"}
    assert states == whole | {"cancelled": SessionState.CANCELLED}
    verify_adapters(published, drawn, completed=[ids[name] for name in whole])
    assert len({adapter.digest for adapter in published}) == 1


@pytest.mark.chaos
async def test_200_random_kills_of_trainers_sessions_and_ledgers_never_undercount(fleet: Fleet) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}, logs in {fleet.folder}")  # noqa: T201 - shown when the test fails
    async with fleet.running():
        dataset = await fleet.seal()
        schedule = Kills(fleet=fleet, random=Random(seed), steps=96)
        await schedule.run(dataset, 200)
        ledger, published = await _ledger(fleet), await _published(fleet)
    drawn = drawn_steps(fleet.witness)
    ledger.verify(drawn)
    newest = {name: session.newest for name, session in fleet.sessions.by_id.items() if session.newest}
    ends = Counter(session.state for session in newest.values())
    charged = sum(grant.request.steps for grant in ledger.grants)
    print(f"{dict(ends)}, {drawn.total()} steps drawn, {charged} charged")  # noqa: T201 - a measured number
    bad = [(session.reason, session.message) for session in newest.values() if session.state not in _ENDS]
    assert bad == []
    completed = [name for name, session in newest.items() if session.state is SessionState.COMPLETED]
    verify_adapters(published, drawn, completed=completed)
    assert fleet.killed.total() == 200
