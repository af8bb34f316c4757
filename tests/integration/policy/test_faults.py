"""Whatever a policy engine answers that is no decision: the sample is never allowed on that ground."""

import asyncio
from collections.abc import Awaitable, Callable

import orjson
import pytest

from ctrainer.agents.compliance.policy import PolicyError, PolicyUnavailableError, RegorusEngine, bundle_of
from ctrainer.streams.policy.acgs import AcgsEngine, as_served
from ctrainer.streams.policy.circuit_breaker import CircuitBreaker
from ctrainer.streams.policy.connection import MOST_BYTES, EngineConnection
from ctrainer.streams.policy.layers import LayeredEngine
from ctrainer.streams.policy.opa import OpaEngine
from tests.integration.policy.engine_server import engine_server, response
from tests.integration.policy.test_conformance import CONSTITUTION, question

BUNDLE = bundle_of(CONSTITUTION)
ALLOWED = {"verdict": "accept", "score": 1.0, "reasons": [], "redact": []}
Answer = Callable[[bytes], Awaitable[bytes]]


def batch(*decisions: object, revision: str = BUNDLE.revision) -> bytes:
    return response(orjson.dumps({"result": {"revision": revision, "decisions": list(decisions)}}))


def entry(number: int = 0, **changes: object) -> dict[str, object]:
    return {"sample": number, "decision": ALLOWED | changes}


UNAVAILABLE = {
    "500": response(b'{"code":"internal_error","message":"x"}', status="500 Internal Server Error"),
    "400": response(b'{"code":"invalid_parameter"}', status="400 Bad Request"),
    "redirect": response(b"", status="302 Found\r\nlocation: http://127.0.0.1:1/"),
    "html": response(b"<html><body>ok</body></html>", kind="text/html"),
    "half a JSON": response(b'{"result": {"revision": "'),
    "nothing": response(b""),
    "empty object": response(b"{}"),
    "null result": response(b'{"result": null}'),
    "true": response(b'{"result": true}'),
    "a list": response(b"[1]"),
    "foreign revision": batch(entry(), revision="sha256:other"),
    "too long": response(b" " * (MOST_BYTES + 1)),
    "closed early": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    "no HTTP": b"\x00\x01\x02 nonsense\r\n\r\n",
}
UNDECIDED = {
    "no decisions": batch(),
    "one too many": batch(entry(), entry(1)),
    "another number": batch(entry(7)),
    "no numbers": batch({"decision": ALLOWED}),
    "no list": response(orjson.dumps({"result": {"revision": BUNDLE.revision, "decisions": {"0": ALLOWED}}})),
    "unknown verdict": batch(entry(verdict="allow")),
    "park": batch(entry(verdict="park")),
    "extra field": batch(entry(override=True)),
    "missing score": batch({"sample": 0, "decision": {"verdict": "accept", "reasons": [], "redact": []}}),
}


def engine_at(url: str, *, deadline_seconds: float = 5.0, breaker: CircuitBreaker | None = None) -> OpaEngine:
    connection = EngineConnection(url, deadline_seconds=deadline_seconds, connections=2, breaker=breaker)
    return OpaEngine(connection, revision=BUNDLE.revision)


async def failure(answer: Answer, *, deadline_seconds: float = 5.0) -> PolicyError:
    async with engine_server(answer) as url:
        engine = engine_at(url, deadline_seconds=deadline_seconds)
        with pytest.raises(PolicyError) as refused:
            await engine.evaluate([question()])
        await engine._connection.close()
    return refused.value


def always(answer: bytes) -> Answer:
    async def answered(_body: bytes) -> bytes:
        return answer

    return answered


@pytest.mark.parametrize("kind", UNAVAILABLE)
async def test_an_answer_that_is_none_is_an_outage(kind: str) -> None:
    assert isinstance(await failure(always(UNAVAILABLE[kind])), PolicyUnavailableError)


@pytest.mark.parametrize("kind", UNDECIDED)
async def test_a_sample_without_a_decision_of_its_own_is_an_error(kind: str) -> None:
    assert not isinstance(await failure(always(UNDECIDED[kind])), PolicyUnavailableError)


async def test_an_answer_after_the_deadline_is_an_outage() -> None:
    async def never(_body: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    assert isinstance(await failure(never, deadline_seconds=0.2), PolicyUnavailableError)


async def test_a_refused_connection_is_an_outage() -> None:
    async with engine_server(always(b"")) as url:
        pass
    with pytest.raises(PolicyUnavailableError):
        await engine_at(url).evaluate([question()])


async def test_an_engine_that_fails_again_and_again_is_left_alone_and_then_tried_with_one_call() -> None:
    now, calls, answers = [0.0], [0], [UNAVAILABLE["500"]]

    async def counted(_body: bytes) -> bytes:
        calls[0] += 1
        return answers[0]

    breaker = CircuitBreaker(failures=3, pause_seconds=5.0, clock=lambda: now[0])
    async with engine_server(counted) as url:
        engine = engine_at(url, breaker=breaker)
        for _ in range(10):
            with pytest.raises(PolicyUnavailableError):
                await engine.evaluate([question()])
        assert calls[0] == 3
        now[0], answers[0] = 5.0, batch(entry())
        assert [made.result.verdict for made in await engine.evaluate([question()])] == ["accept"]
        assert calls[0] == 4
        assert not breaker.is_open
        await engine._connection.close()


@pytest.mark.parametrize("kind", [*UNAVAILABLE, *UNDECIDED])
async def test_the_layer_in_process_decides_where_the_first_does_not(kind: str) -> None:
    async with engine_server(always((UNAVAILABLE | UNDECIDED)[kind])) as url:
        first = engine_at(url)
        layered = LayeredEngine(first, RegorusEngine(BUNDLE))
        (decision,) = await layered.evaluate([question(("rejecting", 1.0))])
        await first._connection.close()
    assert (decision.result.verdict, decision.decided_by) == ("reject", "regorus")
    assert layered.counts == {"fallback": 1}


async def test_a_first_layer_that_decides_otherwise_is_counted() -> None:
    async with engine_server(always(batch(entry()))) as url:
        first = engine_at(url)
        layered = LayeredEngine(first, RegorusEngine(BUNDLE))
        await layered.evaluate([question(("rejecting", 1.0))])
        await layered.evaluate([question()])
        await first._connection.close()
    assert layered.counts == {"disagreed": 1, "agreed": 1}


@pytest.mark.parametrize(
    "body", [b"{}", b'{"allow": "true", "confidence_score": 1}', b'{"allow": true}', b"[true]", b"null"]
)
async def test_an_acgs_engine_that_does_not_say_whether_it_allows_is_an_outage(body: bytes) -> None:
    async with engine_server(always(response(body))) as url:
        connection = EngineConnection(url, deadline_seconds=5.0, connections=1)
        engine = AcgsEngine(
            connection,
            path="/v1/evaluate",
            question=as_served,
            governance_hash="cdd01ef066bc6cf2",
            local=RegorusEngine(BUNDLE),
        )
        with pytest.raises(PolicyUnavailableError):
            await engine.evaluate([question()])
        await connection.close()
