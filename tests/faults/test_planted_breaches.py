"""Sessions whose processes break their promise, on a real broker, with real ledgers and trainers."""

from collections import defaultdict
from pathlib import Path

from ctrainer.agents.events import read_event
from ctrainer.agents.records import Record
from ctrainer.schemas.privacy import BudgetGranted, BudgetSettled, BudgetViolated, ViolationNoted
from ctrainer.schemas.topics import PRIVACY_EVENTS
from ctrainer.schemas.training import SessionState
from ctrainer.streams.event_watch import watch
from tests.faults.breaches import BREACHES, FIRST
from tests.faults.fleet import Fleet
from tests.faults.spend_proof import Ledger, drawn_steps, read_draws, verify_adapters

BLOCK, STEPS = 8, 24
ENDS = {
    "half-noise": ("noise-out-of-plan", FIRST + 1, FIRST),
    "noise-left-out": ("gradient-out-of-plan", FIRST + 1, FIRST),
    "clip-norm-passed": ("clip-out-of-plan", FIRST + 1, FIRST),
    "every-record-drawn": ("sampler-out-of-plan", FIRST, FIRST),
    "ledger-asked-once": ("step-without-grant", BLOCK, BLOCK),
}
"""By breach: the reason that is told, how many steps drew noise, and how many of them the optimizer took."""


def violation(record: Record) -> BudgetViolated | None:
    value = record.value or b""
    return read_event(value, BudgetViolated) if b".BudgetViolated." in value else None


def taken_steps(fleet: Fleet) -> dict[str, int]:
    """Return how many steps the optimizer has taken, by session."""
    found = defaultdict[str, int](int)
    for line in Path(f"{fleet.witness}.taken").read_text().splitlines():
        found[line.split(" ", 1)[0]] += 1
    return found


def charged_steps(ledger: Ledger, session_id: str) -> int:
    return sum(grant.request.steps for grant in ledger.grants if grant.request.session_id == session_id)


async def test_a_session_in_breach_ends_before_the_optimizer_takes_the_step_and_all_of_its_charge_stays(
    fleet: Fleet,
) -> None:
    async with fleet.running(), watch(fleet.reader(), [PRIVACY_EVENTS]) as events:
        dataset = await fleet.seal()
        sound = await fleet.train(dataset, population="sound", steps=STEPS, unsafe_seed=7)
        names = {sound.session_id: "sound"}
        for name in BREACHES:
            names[(await fleet.train(dataset, population=name, steps=STEPS)).session_id] = name
        ends = {name: (await fleet.ended(session_id)).newest for session_id, name in names.items()}
        for _ in BREACHES:
            await events.first(violation, within_seconds=60, what="BudgetViolated")
        ledger, published = await fleet.ledger(), await fleet.published()
    told = [violated async for record in fleet.reader().read_topic(PRIVACY_EVENTS) if (violated := violation(record))]

    assert sorted((names[one.session_id], one.reason) for one in told) == sorted(
        (name, reason) for name, (reason, *_) in ENDS.items()
    )
    draws, taken = drawn_steps(read_draws(fleet.witness)), taken_steps(fleet)
    ledger.verify(draws)
    for session_id, name in names.items():
        newest = ends.pop(name)
        assert newest is not None
        drawn = sum(session == session_id for session, _ in draws)
        if session_id == sound.session_id:
            assert (newest.state, drawn, taken[session_id]) == (SessionState.COMPLETED, STEPS, STEPS)
            continue
        reason, drew, took = ENDS[name]
        assert (newest.state, newest.reason, newest.step) == (SessionState.FAILED, reason, BLOCK)
        assert (drawn, taken[session_id]) == (drew, took)
        entries = [record.entry for record in ledger.records if record.entry.request.session_id == session_id]
        (noted,) = (place for place, entry in enumerate(entries) if isinstance(entry, ViolationNoted))
        assert not any(isinstance(entry, BudgetGranted) for entry in entries[noted:])
        # The block that broke off is charged whole, and never settled.
        assert charged_steps(ledger, session_id) >= -(-drew // BLOCK) * BLOCK
        assert sum(isinstance(entry, BudgetSettled) for entry in entries) == 1
    verify_adapters(published, draws, completed=[sound.session_id])
