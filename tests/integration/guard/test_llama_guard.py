"""Whatever a guard model answers: nothing but its own verdict counts as one, and nothing is ever a permission."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from ctrainer.agents.compliance.guard import Answer, Guard, GuardModel, Question
from ctrainer.agents.compliance.guard_memory import RememberingGuard
from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.trial import spoken
from ctrainer.schemas.compliance import Guarded, Verdict
from ctrainer.streams.guard.llama_guard import HARMLESS, LlamaGuard
from ctrainer.streams.policy.circuit_breaker import CircuitBreaker
from ctrainer.streams.policy.connection import EngineConnection
from tests.integration.policy.engine_server import engine_server, response

CONSTITUTION = default_constitution()
PROMPT = Question(None, "How do I bake bread?")
Script = Callable[[bytes], Awaitable[bytes]]


def completion(content: object, *, finish: str = "stop", **choice: Any) -> bytes:
    message = {"role": "assistant", "content": content}
    answer = {"choices": [{"index": 0, "finish_reason": finish, "message": message, **choice}]}
    return response(orjson.dumps(answer))


def logprobs(*tokens: tuple[str, Any], alternatives: tuple[tuple[Any, Any], ...] = ()) -> dict[str, Any]:
    others = [{"token": token, "logprob": share} for token, share in alternatives]
    return {"content": [{"token": token, "logprob": share, "top_logprobs": others} for token, share in tokens]}


def always(answer: bytes) -> Script:
    async def answered(_body: bytes) -> bytes:
        return answer

    return answered


def of_all_but_greetings(answer: bytes) -> Script:
    """Give the same answer about everything but what shows that there is a guard model."""

    async def answered(body: bytes) -> bytes:
        return completion("safe") if orjson.dumps(HARMLESS.text) in body else answer

    return answered


VERDICTS: dict[str, tuple[bytes, dict[str, float]]] = {
    "safe": (completion("safe"), {}),
    "safe after blank lines": (completion("\n\nsafe"), {}),
    "safe with its probability": (
        completion("\n\nsafe", logprobs=logprobs(("\n\n", 0.0), ("safe", -0.4), alternatives=(("unsafe", -1.1),))),
        {},
    ),
    "unsafe with a code": (completion("unsafe\nS1"), {"S1": 1.0}),
    "unsafe with codes": (completion("\n\nunsafe\nS1, S9,S14\n"), {"S1": 1.0, "S9": 1.0, "S14": 1.0}),
    "unsafe with its probability": (
        completion(
            "\n\nunsafe\nS9",
            logprobs=logprobs(
                ("\n\n", 0.0), ("unsafe", math.log(0.6)), alternatives=(("safe", math.log(0.2)), (" the", -9.0))
            ),
        ),
        {"S9": 0.75},
    ),
}
UNCLEAR = {
    "an unknown code": completion("unsafe\nS99"),
    "a known and an unknown code": completion("unsafe\nS1,S15"),
    "no code": completion("unsafe"),
    "codes after safe": completion("safe\nS1"),
    "safe in a sentence": completion("This is safe."),
    "upper case": completion("SAFE"),
    "garbage": completion("\ufffd\x00 qwerty"),
    "nothing": completion(""),
    "a refusal": completion(None, message={"role": "assistant", "content": None, "refusal": "I cannot help."}),
    "a refusal in words": completion("I'm sorry, but I can't assist with that."),
    "cut off": completion("unsafe\nS1", finish="length"),
    "filtered": completion("safe", finish="content_filter"),
    "content in parts": completion([{"type": "text", "text": "safe"}]),
    "a log-probability above zero": completion("unsafe\nS1", logprobs=logprobs(("unsafe", 0.5))),
    "a log-probability that is no number": completion("unsafe\nS1", logprobs=logprobs(("unsafe", "NaN"))),
    "an alternative that is no number": completion(
        "unsafe\nS1", logprobs=logprobs(("unsafe", -0.1), alternatives=(("safe", "nan"),))
    ),
    "a log-probability that is a truth value": completion("unsafe\nS1", logprobs=logprobs(("unsafe", False))),
    "a token that is none": completion("unsafe\nS1", logprobs=logprobs(("unsafe", -0.1), alternatives=((None, -1.0),))),
    "a verdict that its probabilities deny": completion(
        "unsafe\nS1", logprobs=logprobs(("unsafe", -5.0), alternatives=(("safe", -0.1),))
    ),
    "a harmless verdict that its probabilities deny": completion(
        "safe", logprobs=logprobs(("safe", -5.0), alternatives=(("unsafe", -0.01),))
    ),
    "a harmless verdict with a log-probability that is no number": completion(
        "safe", logprobs=logprobs(("safe", "NaN"))
    ),
    "a harmless verdict with log-probabilities of nothing": completion("safe", logprobs={"content": []}),
    "log-probabilities of another shape": completion("unsafe\nS1", logprobs=[1]),
    "log-probabilities of nothing": completion("unsafe\nS1", logprobs={"content": []}),
    "log-probabilities of other words": completion("unsafe\nS1", logprobs=logprobs(("hello", -0.1))),
    "a request that it does not take": response(b'{"error": "too long"}', status="400 Bad Request"),
}
UNAVAILABLE = {
    "500": response(b'{"error": "out of memory"}', status="500 Internal Server Error"),
    "no such model": response(b'{"error": "not found"}', status="404 Not Found"),
    "forbidden": response(b"{}", status="403 Forbidden"),
    "redirect": response(b"", status="302 Found\r\nlocation: http://127.0.0.1:1/"),
    "html": response(b"<html><body>safe</body></html>", kind="text/html"),
    "half a JSON": response(b'{"choices": [{"message": {"content": "safe'),
    "empty object": response(b"{}"),
    "no choices": response(b'{"choices": []}'),
    "two choices": response(orjson.dumps({"choices": [{"finish_reason": "stop", "message": {"content": "safe"}}] * 2})),
    "choices of another shape": response(b'{"choices": ["safe"]}'),
    "a list": response(b'["safe"]'),
    "null": response(b"null"),
    "closed early": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
}
KINDS = ("asking", "remembering")


@asynccontextmanager
async def guard_model(
    kind: str, script: Script, *, deadline_seconds: float = 5.0, breaker: CircuitBreaker | None = None
) -> AsyncIterator[GuardModel]:
    async with engine_server(script) as url:
        connection = EngineConnection(url, deadline_seconds=deadline_seconds, connections=2, breaker=breaker)
        model = LlamaGuard(connection, model="llama-guard", version="3")
        try:
            yield RememberingGuard(model) if kind == "remembering" else model
        finally:
            await connection.close()


async def answer_of(kind: str, script: Script, *, deadline_seconds: float = 5.0) -> Answer:
    async with guard_model(kind, script, deadline_seconds=deadline_seconds) as model:
        (answer,) = await model.answers([PROMPT])
    return answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", VERDICTS)
async def test_a_verdict_is_read_with_its_codes_and_its_probability(kind: str, said: str) -> None:
    answer, expected = VERDICTS[said]
    assert await answer_of(kind, always(answer)) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", UNCLEAR)
async def test_an_answer_that_is_no_verdict_is_unclear(kind: str, said: str) -> None:
    assert await answer_of(kind, of_all_but_greetings(UNCLEAR[said])) is Guarded.UNCLEAR


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", UNCLEAR)
async def test_who_says_nothing_clear_of_a_greeting_is_no_guard_model_and_leaves_nothing_to_people(
    kind: str, said: str
) -> None:
    assert await answer_of(kind, always(UNCLEAR[said])) is Guarded.UNAVAILABLE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", UNAVAILABLE)
async def test_what_is_no_answer_is_an_outage(kind: str, said: str) -> None:
    assert await answer_of(kind, always(UNAVAILABLE[said])) is Guarded.UNAVAILABLE


@pytest.mark.parametrize("kind", KINDS)
async def test_silence_ends_at_the_deadline_for_all_questions_of_a_batch_together(kind: str) -> None:
    calls = [0]

    async def never(_body: bytes) -> bytes:
        calls[0] += 1
        await asyncio.sleep(30)
        return completion("safe")

    questions = [Question(None, f"Question {number}?") for number in range(200)]
    async with asyncio.timeout(5), guard_model(kind, never, deadline_seconds=0.2) as model:
        answers = await model.answers(questions)
    assert answers == [Guarded.UNAVAILABLE] * 200
    assert calls[0] <= 4


async def test_a_refused_connection_is_an_outage() -> None:
    async with engine_server(always(b"")) as url:
        pass
    connection = EngineConnection(url, deadline_seconds=5.0, connections=1)
    model = LlamaGuard(connection, model="m", version="1")
    assert await model.answers([PROMPT]) == [Guarded.UNAVAILABLE]
    await connection.close()


async def test_texts_that_it_does_not_take_do_not_stop_it_from_being_asked_about_others() -> None:
    async def picky(body: bytes) -> bytes:
        too_long = b"long" in body
        return response(b"{}", status="400 Bad Request") if too_long else completion("safe")

    async with guard_model("asking", picky) as model:
        refused = await model.answers([Question(None, f"long {number}") for number in range(10)])
        assert refused == [Guarded.UNCLEAR] * 10
        assert await model.answers([PROMPT]) == [{}]


async def test_a_prompt_is_asked_about_as_the_users_and_an_answer_as_the_assistants_after_it() -> None:
    asked: list[Any] = []

    async def noting(body: bytes) -> bytes:
        asked.append(orjson.loads(body))
        return completion("safe")

    async with guard_model("asking", noting) as model:
        await model.answers([Question(None, "How?")])
        await model.answers([Question("How?", "So.")])
    user, assistant = {"role": "user", "content": "How?"}, {"role": "assistant", "content": "So."}
    assert [one["messages"] for one in asked] == [[user], [user, assistant]]
    assert {(one["model"], one["temperature"], one["logprobs"]) for one in asked} == {("llama-guard", 0, True)}


async def test_a_verdict_is_asked_for_once_and_anything_else_again() -> None:
    answers = [UNAVAILABLE["500"], UNCLEAR["garbage"], completion("safe"), completion("unsafe\nS1")]
    calls = [0]

    async def counted(_body: bytes) -> bytes:
        calls[0] += 1
        return answers[min(calls[0], len(answers)) - 1]

    async with guard_model("remembering", counted) as model:
        said = [(await model.answers([PROMPT, PROMPT]))[0] for _ in range(5)]
    assert said == [Guarded.UNAVAILABLE, Guarded.UNCLEAR, {"S1": 1.0}, {"S1": 1.0}, {"S1": 1.0}]
    assert calls[0] == 4


@pytest.mark.parametrize("said", [*UNCLEAR, *UNAVAILABLE])
async def test_no_answer_but_a_verdict_lets_a_sample_pass(said: str) -> None:
    async with guard_model("remembering", of_all_but_greetings((UNCLEAR | UNAVAILABLE)[said])) as model:
        guard = Guard(model, CONSTITUTION, asks="always", is_asked=lambda _: True)
        court = Court(CONSTITUTION, guard=guard)
        verdicts = court.verdicts(RegorusEngine(bundle_of(CONSTITUTION)))
        ((_, decision),) = await court.decide(verdicts, [court.examine(spoken("How do I bake bread?", "user"))])
    expected = Verdict.REVIEW if said in UNCLEAR else Verdict.PARK
    assert decision.result.verdict is expected
