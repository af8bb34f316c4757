"""Whatever a policy engine answers that is no decision: the sample is never allowed on that ground."""

import asyncio
import gzip
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import process_time

import orjson
import pytest

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.policy import PolicyError, PolicyUnavailableError, RegorusEngine, bundle_of
from ctrainer.agents.compliance.verdicts import Case
from ctrainer.streams.policy.acgs import AcgsEngine, as_served
from ctrainer.streams.policy.circuit_breaker import CircuitBreaker
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.policy.http_connection import MOST_BYTES
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
    "compressed": response(
        gzip.compress(batch(entry()).partition(b"\r\n\r\n")[2]), status="200 OK\r\ncontent-encoding: gzip"
    ),
    "a head without end": b"HTTP/1.1 200 OK\r\nx-head: " + b"x" * 1_000_000,
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
    "no decision in an entry": batch({"sample": 0}),
    "a truth value for a number": batch(entry(False)),  # noqa: FBT003 - what an engine might send
    "score over 1": batch(entry(score=1.5)),
    "score under 0": batch(entry(score=-0.5)),
    "redact without naming what": batch(entry(verdict="redact")),
    "redact what was not found": batch(entry(verdict="redact", redact=["nobody-knows"])),
    "accept what must be redacted": batch(entry(redact=["rejecting"])),
    "nested as deep as JSON may be": response(
        b'{"result": {"revision": "%b", "decisions": [{"sample": 0, "decision": %b}]}}'
        % (BUNDLE.revision.encode(), b"[" * 900 + b"]" * 900)
    ),
    "missing score": batch({"sample": 0, "decision": {"verdict": "accept", "reasons": [], "redact": []}}),
}


def engine_at(url: str, *, deadline_seconds: float = 5.0, breaker: CircuitBreaker | None = None) -> OpaEngine:
    connection = EngineConnection(url, deadline_seconds=deadline_seconds, connections=2, breaker=breaker)
    return OpaEngine(connection, revision=BUNDLE.revision)


async def failure(answer: Answer, *, deadline_seconds: float = 5.0) -> PolicyError:
    async with engine_server(answer) as url:
        engine = engine_at(url, deadline_seconds=deadline_seconds)
        with pytest.raises(PolicyError) as refused:
            await engine.evaluate([question(("rejecting", 1.0))])
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


async def test_a_connection_reset_before_the_answer_is_an_outage() -> None:
    async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lingering = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        engine = engine_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(PolicyUnavailableError):
            await engine.evaluate([question()])
        await engine._connection.close()


@pytest.mark.parametrize(
    ("piece", "deadline_seconds", "kind"), [(b"x" * 65_536, 60.0, "too-long"), (b"", 0.2, "deadline")]
)
async def test_an_answer_without_end_is_an_outage(piece: bytes, deadline_seconds: float, kind: str) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n")
        with suppress(ConnectionError):
            while piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
            await reader.read()
        writer.close()

    async with await asyncio.start_server(endless, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        engine = engine_at(url, deadline_seconds=deadline_seconds)
        with pytest.raises(PolicyUnavailableError, match=kind):
            await engine.evaluate([question()])
        await engine._connection.close()


async def test_a_batch_that_waits_for_a_free_connection_does_not_pass_its_deadline() -> None:
    async def slowly(body: bytes) -> bytes:
        await asyncio.sleep(0.05)
        return batch(*(entry(number) for number in range(len(orjson.loads(body)["input"]["samples"]))))

    async with engine_server(slowly) as url:
        engine = engine_at(url, deadline_seconds=1.0)
        decisions = await engine.evaluate([question()] * 64 * 50)
        await engine._connection.close()
    assert len(decisions) == 64 * 50


async def test_of_many_calls_after_a_pause_only_one_is_made() -> None:
    now, calls = [0.0], [0]

    async def counted(_body: bytes) -> bytes:
        calls[0] += 1
        return UNAVAILABLE["500"]

    breaker = CircuitBreaker(failures=3, pause_seconds=5.0, clock=lambda: now[0])
    async with engine_server(counted) as url:
        engine = engine_at(url, breaker=breaker)
        for _ in range(3):
            with pytest.raises(PolicyUnavailableError):
                await engine.evaluate([question()])
        now[0] = 5.0
        refused = await asyncio.gather(*(engine.evaluate([question()]) for _ in range(20)), return_exceptions=True)
        await engine._connection.close()
    assert all(isinstance(one, PolicyUnavailableError) for one in refused)
    assert calls[0] == 4


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


REDACTED = {"verdict": "redact", "redact": ["redacting"]}


@pytest.mark.parametrize(
    ("found", "said", "verdict", "redact"),
    [
        (["rejecting"], {}, "reject", ()),
        ([], {"verdict": "reject", "reasons": ["told"]}, "reject", ()),
        (["redacting"], {"verdict": "revise", "reasons": ["told"]}, "review", ("redacting",)),
        ([], {"verdict": "revise", "reasons": ["told"]}, "review", ()),
        (["redacting"], {"verdict": "reject", "reasons": ["x" * 900]}, "reject", ("redacting",)),
        (["rejecting", "redacting"], REDACTED, "reject", ("redacting",)),
    ],
)
async def test_what_a_layer_would_let_pass_alone_does_not_pass(
    found: list[str], said: dict[str, object], verdict: str, redact: tuple[str, ...]
) -> None:
    async with engine_server(always(batch({"sample": 0, "decision": ALLOWED | said}))) as url:
        first = engine_at(url)
        layered = LayeredEngine(first, RegorusEngine(BUNDLE))
        (decision,) = await layered.evaluate([question(*((principle, 1.0) for principle in found))])
        await first._connection.close()
    assert (decision.result.verdict, decision.result.redact) == (verdict, redact)
    assert decision.decided_by == "opa|regorus"
    assert len(decision.to_json()) < 1_000
    assert layered.counts == {"disagreed": 1}


async def test_a_score_that_does_not_fit_its_verdict_is_not_told() -> None:
    async with engine_server(always(batch(entry(score=0.125)))) as url:
        first = engine_at(url)
        (decision,) = await LayeredEngine(first, RegorusEngine(BUNDLE)).evaluate([question()])
        await first._connection.close()
    assert (decision.result.verdict, decision.result.score, decision.decided_by) == ("accept", 1.0, "opa")


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"allow": "true", "confidence_score": 1}',
        b'{"allow": true}',
        b'{"allow": true, "confidence_score": true}',
        b'{"allow": true, "confidence_score": -7}',
        b'{"allow": true, "confidence_score": 1.0, "violations": ["harm"]}',
        b"[true]",
        b"null",
    ],
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


async def test_a_question_that_an_acgs_engine_refuses_parks_that_sample_alone() -> None:
    async def choosing(body: bytes) -> bytes:
        findings = orjson.loads(body)["input_data"]["findings"]
        if findings and findings[0]["principle"] != "reviewing":
            return response(b"{}", status="422 Unprocessable Content")
        return response(b'{"allow": true, "confidence_score": 1.0}')

    async with engine_server(choosing) as url:
        connection = EngineConnection(url, deadline_seconds=5.0, connections=2)
        local = RegorusEngine(BUNDLE)
        engine = AcgsEngine(connection, path="/v1/evaluate", question=as_served, governance_hash="", local=local)
        found = [[], ["redacting"], ["reviewing"], ["rejecting"]]
        decisions = await engine.evaluate([question(*((one, 1.0) for one in principles)) for principles in found])
        await connection.close()
    assert [decision.result.verdict for decision in decisions] == ["accept", "park", "review", "reject"]
    assert [decision.decided_by for decision in decisions] == ["acgs+regorus", "none", "acgs+regorus", "regorus"]


async def test_an_answer_that_is_longer_than_any_decision_takes_no_time_to_be_none() -> None:
    reasons = b"1," * 1_000_000
    made = b'{"verdict": "accept", "score": 1.0, "redact": [], "reasons": [%b1]}' % reasons
    body = b'{"result": {"revision": "%b", "decisions": [{"sample": 0, "decision": %b}]}}' % (
        BUNDLE.revision.encode(),
        made,
    )
    started = process_time()
    error = await failure(always(response(body)))
    assert process_time() - started < 1.0
    assert len(str(error)) < 200


async def test_an_acgs_engine_that_changes_its_mind_is_heard_at_once() -> None:
    says = [True, False]

    async def moody(_body: bytes) -> bytes:
        return response(orjson.dumps({"allow": says.pop(0), "confidence_score": 1.0}))

    async with engine_server(moody) as url:
        connection = EngineConnection(url, deadline_seconds=5.0, connections=1)
        engine = AcgsEngine(
            connection, path="/v1/evaluate", question=as_served, governance_hash="", local=RegorusEngine(BUNDLE)
        )
        verdicts = Court(CONSTITUTION).verdicts(engine)
        case = Case("shop", "desk", "m", ())
        decided = [(await verdicts.of([case]))[case] for _ in range(2)]
        await connection.close()
    assert [decision.result.verdict for decision in decided] == ["accept", "reject"]
    assert {decision.decided_by for decision in decided} == {"acgs+regorus"}


async def test_an_acgs_engine_that_names_violations_without_end_gives_few_and_short_reasons() -> None:
    nested = b"[" * 1_000 + b"]" * 1_000
    texts = b",".join(b'"%b"' % (b"%05d" % number * 100) for number in range(5_000))
    answer = b'{"allow": false, "confidence_score": 0.0, "violations": [%b, %b]}' % (nested, texts)
    async with engine_server(always(response(answer))) as url:
        connection = EngineConnection(url, deadline_seconds=5.0, connections=1)
        local = RegorusEngine(BUNDLE)
        engine = AcgsEngine(connection, path="/v1/evaluate", question=as_served, governance_hash="", local=local)
        (decision,) = await engine.evaluate([question()])
        await connection.close()
    assert decision.result.verdict == "reject"
    assert len(decision.result.reasons) == 32
    assert {len(reason) for reason in decision.result.reasons} == {256}
