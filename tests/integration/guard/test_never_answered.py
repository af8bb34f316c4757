"""A guard model that fails over one sample is left alone after failures, and that sample is still found to be alone."""

import json

from ctrainer.agents.compliance.guard import Guard
from ctrainer.agents.compliance.guard_memory import RememberingGuard
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.records import OutputRecord, RecordBatch
from ctrainer.agents.rejudging import MOST_ATTEMPTS, WAITS_PER_ATTEMPT, Rejudging
from ctrainer.agents.screening import Screening
from ctrainer.agents.unanswered import PolicyOutageError
from ctrainer.schemas.samples import ParkedSample
from ctrainer.streams.guard.llama_guard import LlamaGuard
from ctrainer.streams.policy.circuit_breaker import PAUSE_SECONDS, CircuitBreaker
from ctrainer.streams.policy.connection import EngineConnection
from tests.integration.guard.test_llama_guard import CONSTITUTION, completion
from tests.integration.policy.engine_server import engine_server, response
from tests.unit.agents.conftest import InMemoryTopics
from tests.unit.agents.test_slow_lane import Flow, logged, of

TURNS = [{"role": role, "content": f"Riddle {number}"} for number in range(4) for role in ("user", "assistant")]


def long_riddle() -> bytes:
    record = json.loads(logged("Riddle"))
    record["request"]["messages"] = [*TURNS, *record["request"]["messages"]]
    return json.dumps(record).encode()


async def test_a_sample_whose_every_turn_is_never_answered_goes_to_a_person() -> None:
    now, topics = [0.0], InMemoryTopics()

    async def choking(body: bytes) -> bytes:
        return response(b"{}", status="500 Internal Server Error") if b"Riddle" in body else completion("safe")

    breaker = CircuitBreaker(clock=lambda: now[0])
    async with engine_server(choking) as url:
        connection = EngineConnection(url, deadline_seconds=5.0, connections=2, breaker=breaker)
        model = RememberingGuard(LlamaGuard(connection, model="m", version="1"))
        guard = Guard(model, CONSTITUTION, asks="always", is_asked=lambda _: True)
        flow = Flow(topics, Court(CONSTITUTION, guard=guard))
        record = topics.append(OutputRecord("flywheel.samples", b"shop/desk", long_riddle(), 1))
        flow.deliver(await Screening(judges=flow.judges)(of(record)))
        waits = await _waits_until_it_is_left(flow, now)
        await connection.close()
    assert waits <= MOST_ATTEMPTS * WAITS_PER_ATTEMPT
    assert flow.decisions()[-1].reasons == ("guard-never-answered",)


async def _waits_until_it_is_left(flow: Flow, now: list[float]) -> int:
    rejudging, waits = Rejudging(judges=flow.judges), 0
    while ParkedSample.from_json(flow.waiting()[-1].value).waits_for == "policy" and waits < 1_000:
        batch = RecordBatch(topic="samples.slow-lane", partition=0, epoch=1, records=(flow.waiting()[-1],))
        try:
            flow.deliver(await rejudging(batch))
        except PolicyOutageError:
            waits += 1
        now[0] += PAUSE_SECONDS
    return waits
