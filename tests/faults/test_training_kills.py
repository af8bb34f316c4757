import asyncio
import os
import secrets
import signal
import time
from collections import Counter
from random import Random

import pytest

from ctrainer.schemas.training import CancelTraining, PauseTraining, ResumeTraining, SessionState
from tests.faults.fleet import Fleet, Kills
from tests.faults.spend_proof import drawn_steps, read_draws, verify_adapters

_ENDS = {SessionState.COMPLETED, SessionState.REJECTED, SessionState.HALTED}


async def _kill(fleet: Fleet, session_id: str) -> None:
    """Kill a session's process, and say how long it takes until another one draws noise."""
    await fleet.has_drawn(session_id, 10)
    drawn, killed = fleet.draws(session_id), time.monotonic()
    for process in fleet.processes(session_id):
        os.kill(process, signal.SIGKILL)
    await fleet.has_drawn(session_id, drawn + 1)
    print(f"resumed {time.monotonic() - killed:.1f} s after SIGKILL")  # noqa: T201 - a measured number


async def _stop(fleet: Fleet, session_id: str) -> None:
    await fleet.has_drawn(session_id, 10)
    for process in fleet.processes(session_id):
        os.kill(process, signal.SIGTERM)


async def _cancel(fleet: Fleet, session_id: str) -> None:
    await fleet.has_drawn(session_id, 10)
    await fleet.steer(CancelTraining, session_id)


async def _pause_and_resume(fleet: Fleet, session_id: str) -> None:
    await fleet.has_drawn(session_id, 10)
    await fleet.steer(PauseTraining, session_id)
    await fleet.told(session_id, lambda newest: newest.state is SessionState.PAUSED)
    assert fleet.processes(session_id) == []
    await fleet.steer(ResumeTraining, session_id)


@pytest.mark.timeout(600)
async def test_a_seeded_session_goes_on_bit_for_bit_when_it_was_killed_stopped_or_paused(fleet: Fleet) -> None:
    interruptions = {"killed": _kill, "stopped": _stop, "cancelled": _cancel, "paused": _pause_and_resume}
    async with fleet.running():
        dataset = await fleet.seal()
        ids: dict[str, str] = {}
        async with asyncio.TaskGroup() as interrupting:
            for name in ("whole", *interruptions):
                session = await fleet.train(dataset, population=name, steps=80, unsafe_seed=7)
                ids[name] = session.session_id
                if name in interruptions:
                    interrupting.create_task(interruptions[name](fleet, session.session_id))
        ends = {name: (await fleet.ended(session_id)).newest for name, session_id in ids.items()}
        ledger, published = await fleet.ledger(), await fleet.published()

    draws = read_draws(fleet.witness)
    ledger.verify(drawn_steps(draws))
    states = {name: newest.state for name, newest in ends.items() if newest}
    # A kill may forfeit more than what the plan has spare: such a session halts shortly before its end.
    assert states.pop("killed") in {SessionState.COMPLETED, SessionState.HALTED}
    whole = dict.fromkeys(("whole", "stopped", "paused"), SessionState.COMPLETED)
    assert states == whole | {"cancelled": SessionState.CANCELLED}
    adapters = {(draw.step, draw.adapter) for draw in draws}
    assert len(adapters) == 80, "an adapter differs from that of the same step in another session"
    completed = [name for name, newest in ends.items() if newest and newest.state is SessionState.COMPLETED]
    verify_adapters(published, drawn_steps(draws), completed=[ids[name] for name in completed])
    assert len({adapter.digest for adapter in published}) == 1


@pytest.mark.chaos
async def test_200_random_kills_of_trainers_sessions_and_ledgers_never_undercount(fleet: Fleet) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}, logs in {fleet.folder}")  # noqa: T201 - shown when the test fails
    async with fleet.running():
        dataset = await fleet.seal()
        schedule = Kills(fleet=fleet, random=Random(seed), steps=96)
        await schedule.run(dataset, 200)
        ledger, published = await fleet.ledger(), await fleet.published()
    drawn = drawn_steps(read_draws(fleet.witness))
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
