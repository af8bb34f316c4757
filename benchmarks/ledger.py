"""What the privacy ledger costs a session: a grant, the check in it, and the time it adds to a step.

A worker with the privacy role runs in a process of its own, on the embedded broker, with a session's own channel to it.
The step's time is that of whole trainings of a small model: with a ledger that answers at once, with the real one asked
ahead as sessions do it, and with the real one asked when its answer is needed; in turn, medians. It is given in two
parts, which other programs disturb little: processor time of this process, the Kafka client included, over that with
the ledger that answers at once; and the share of the clock that passes between telling of a block and the first forward
pass of the next one.
"""

import argparse
import asyncio
import json
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any
from uuid import UUID, uuid4

import torch

from benchmarks.broker import broker
from benchmarks.dp_paths import Shape
from benchmarks.one_worker import one_worker
from ctrainer.schemas.constitution_reference import ConstitutionReference
from ctrainer.schemas.privacy import BudgetRefused, Mechanism
from ctrainer.schemas.training import Desired, SessionState, TrainAdapter, TrainingAssignment
from ctrainer.streams.location import locate
from ctrainer.streams.loop_thread import LoopThread
from ctrainer.streams.roles import Role
from ctrainer.streams.session_channel import SessionChannel
from ctrainer.streams.settings import Settings
from ctrainer.trainer.accounting import rdp_of_step
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.ledger import Grant, Granted, LedgerState, reserve
from ctrainer.trainer.loop import train
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.reservations import Answer, Reserve
from ctrainer.trainer.tokenization import EncodedExample

CONSTITUTION = ConstitutionReference(hash="cdd01ef066bc6cf2", digest="sha256:00")
STEPS, BLOCK, TOKENS, RECORDS = 24, 8, 64, 4
MECHANISM = Mechanism(sampling_rate=1.0, noise_multiplier=200.0, clip_norm=1.0, expected_batch_size=RECORDS)
"""So much noise that a thousand grants stay within the budget; what it is does not change the time it takes."""
SHAPE = Shape(name="small", layers=4, width=384, inner=1024, heads=6, key_value_heads=2, vocabulary=8192)
DELTA = 1e-5


def gate_milliseconds(*, grants: int, checks: int) -> dict[str, float]:
    """Return how long the ledger's arithmetic takes for one reservation of a scope with many grants."""
    step = rdp_of_step(MECHANISM.sampling_rate, MECHANISM.noise_multiplier)
    known = {str(number): Grant(fingerprint="f", steps=BLOCK) for number in range(grants)}
    state = LedgerState(rdp=tuple(grants * value for value in step), grants=MappingProxyType(known), sequence=grants)
    taken = []
    for number in range(checks):
        began = time.thread_time()
        _, answer = reserve(
            state,
            reservation_id=f"new-{number}",
            fingerprint="f",
            step_rdp=step,
            steps=BLOCK,
            epsilon_ceiling=8.0,
            delta=DELTA,
        )
        taken.append(1_000 * (time.thread_time() - began))
        if not isinstance(answer, Granted):
            raise TypeError(f"got {answer}, expected a grant")
    return _percentiles(taken, digits=3)


def assignment() -> TrainingAssignment:
    """Return a session in a scope of its own."""
    request = TrainAdapter(request_id=UUID(int=1), tenant="bench", dataset_id="d", constitution=CONSTITUTION)
    return TrainingAssignment(
        session_id=str(uuid4()),
        tenant="bench",
        desired=Desired.TRAINED,
        request=request,
        scope=f"bench/{uuid4()}",
        mechanism=MECHANISM,
        steps=STEPS,
        epsilon_planned=7.0,
    )


class Session:
    """A session's line to the real ledger, from a thread that computes."""

    def __init__(self, settings: Settings, loop: LoopThread) -> None:
        self._loop = loop
        self._channel = loop.run(SessionChannel.open(settings, locate(settings), assignment(), CONSTITUTION))

    def reserve(self, first_step: int, steps: int) -> Answer:
        """Ask the ledger."""
        answer = self._loop.run(self._channel.reserve(first_step, steps))
        if isinstance(answer, BudgetRefused):
            raise TypeError(f"refused: {answer.message}")
        return answer

    def on_block(self, step: int) -> None:
        """Tell of a block while the next one runs."""
        self._loop.begin(self._channel.advanced(SessionState.TRAINING, step))

    def close(self) -> None:
        """Hang up."""
        self._loop.run(self._channel.advanced(SessionState.COMPLETED, STEPS))
        self._loop.run(self._channel.close())


def grant_milliseconds(session: Session, *, grants: int, warm_up: int) -> dict[str, float]:
    """Return how long a session waits for a grant that it did not ask for ahead."""
    taken = []
    for number in range(grants + warm_up):
        began = time.perf_counter()
        session.reserve(BLOCK * number, BLOCK)
        taken.append(1_000 * (time.perf_counter() - began))
    return _percentiles(taken[warm_up:], digits=1)


def step_ratios(settings: Settings, loop: LoopThread, *, rounds: int) -> dict[str, float]:
    """Return what the three ways to ask cost a step."""

    def instant(first_step: int, steps: int) -> Answer:
        return Granted(epsilon=float(first_step + steps), rdp=(), alert=False)

    model = SHAPE.build(torch.device("cpu"))
    found: dict[str, list[Taken]] = {"at_once": [], "ahead": [], "when_needed": []}
    for _ in range(rounds):
        session = Session(settings, loop)
        # The connection to the ledger is opened once in a session, before its first step.
        session.reserve(0, BLOCK)
        found["at_once"].append(_taken(model, instant, lambda _step: None))
        found["ahead"].append(_taken(model, _first_at_once(session.reserve, instant), session.on_block))
        found["when_needed"].append(_taken(model, instant, _asking(session)))
        session.close()
    processor = {name: statistics.median(one.processor for one in of_way) for name, of_way in found.items()}
    waits = {name: statistics.median(one.waited / one.clock for one in of_way) for name, of_way in found.items()}
    return {
        "step_s": round(processor["at_once"] / STEPS, 3),
        **{f"step_processor_{name}": round(took / processor["at_once"], 4) for name, took in processor.items()},
        **{f"step_wait_{name}": round(share, 4) for name, share in waits.items()},
    }


def _first_at_once(asked: Reserve, instant: Reserve) -> Reserve:
    return lambda first_step, steps: instant(first_step, steps) if first_step == 0 else asked(first_step, steps)


def _asking(session: Session) -> Callable[[int], None]:
    """Return what a loop that asks for no block ahead would do between two blocks."""

    def between(step: int) -> None:
        session.on_block(step)
        if step < STEPS:
            session.reserve(step, BLOCK)

    return between


@dataclass(slots=True)
class Taken:
    """Seconds of one training: of the processor, of the clock, and of the clock between blocks."""

    processor: float = 0.0
    clock: float = 0.0
    waited: float = 0.0
    _told: float | None = None

    def tell(self, on_block: Callable[[int], None], step: int) -> None:
        """Tell of a block, and wait from now on."""
        self._told = time.perf_counter()
        on_block(step)

    def forward(self, *_: object) -> None:
        """Wait no more."""
        if self._told is not None:
            self.waited += time.perf_counter() - self._told
            self._told = None


def _taken(model: Any, asked: Reserve, on_block: Callable[[int], None]) -> Taken:
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, 8_000, (TOKENS,), generator=generator).tolist() for _ in range(RECORDS)]
    plan = PrivacyPlan(
        noise_multiplier=MECHANISM.noise_multiplier,
        sampling_rate=MECHANISM.sampling_rate,
        expected_batch_size=MECHANISM.expected_batch_size,
        clip_norm=MECHANISM.clip_norm,
        steps=STEPS,
        delta=DELTA,
        epsilon_ceiling=8.0,
        epsilon_planned=7.0,
    )
    taken = Taken()
    hook = model.register_forward_pre_hook(taken.forward)
    with TemporaryDirectory() as folder:
        clock, processor = time.perf_counter(), time.process_time()
        train(
            model=model,
            examples=[EncodedExample(token_ids=tuple(row), labels=tuple(row)) for row in rows],
            pad_token_id=0,
            plan=plan,
            learning_rate=1e-3,
            randomness=Randomness.secure(),
            reserve=asked,
            on_block=partial(taken.tell, on_block),
            should_stop=lambda: False,
            checkpoints=Checkpoints(folder=Path(folder)),
            block_steps=BLOCK,
        )
        taken.clock, taken.processor = time.perf_counter() - clock, time.process_time() - processor
    hook.remove()
    return taken


def _percentiles(milliseconds: Sequence[float], *, digits: int) -> dict[str, float]:
    ordered = sorted(milliseconds)
    return {
        "p50_ms": round(statistics.median(ordered), digits),
        "p99_ms": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], digits),
    }


async def _with_worker(servers: str, act: Callable[[Settings], dict[str, float]]) -> dict[str, float]:
    async with one_worker(servers, Role.PRIVACY) as settings:
        return await asyncio.to_thread(act, settings)


def main() -> None:
    """Print the gate's and the grant's percentiles, and the step's ratios as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap-servers", help="a broker; none starts one")
    parser.add_argument("--grants", type=int, default=400)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    torch.set_num_threads(1)
    gate = gate_milliseconds(grants=1_000, checks=2_000)
    if not arguments.json:
        print(f"gate check, scope with 1,000 grants: {gate}", flush=True)

    def act(settings: Settings) -> dict[str, float]:
        with LoopThread() as loop:
            session = Session(settings, loop)
            grant = grant_milliseconds(session, grants=arguments.grants, warm_up=arguments.warm_up)
            session.close()
            if not arguments.json:
                print(f"grant, asked and waited for: {grant}", flush=True)
            steps = step_ratios(settings, loop, rounds=arguments.rounds)
        named = {f"grant_{name}": value for name, value in grant.items()}
        return {**{f"gate_{name}": value for name, value in gate.items()}, **named, **steps}

    with broker(arguments.bootstrap_servers) as servers:
        print(json.dumps(asyncio.run(_with_worker(servers, act))))


if __name__ == "__main__":
    main()
