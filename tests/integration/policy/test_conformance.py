"""One suite for every policy engine: the same input, the same decision."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import (
    PolicyEngine,
    PolicyError,
    PolicyUnavailableError,
    RegorusEngine,
    bundle_of,
)
from ctrainer.schemas.compliance import Severity
from ctrainer.schemas.constitution import Action, Constitution, Mode, Principle, Rule
from ctrainer.streams.embedded import opa_server
from ctrainer.streams.policy.acgs import AcgsEngine, as_called, as_served
from ctrainer.streams.policy.connection import EngineConnection
from ctrainer.streams.policy.layers import LayeredEngine
from ctrainer.streams.policy.opa import OpaEngine
from tests.integration.policy.engine_server import engine_server, response

ENGINES = ("regorus", "opa", "layered", "acgs", "acgs-api")
MakeEngine = Callable[[Constitution], PolicyEngine]


def principle(name: str, **changes: Any) -> Principle:
    fields: dict[str, Any] = {"severity": Severity.HIGH, "action": Action.REJECT, "critique": "c", "revision": "r"}
    rules = (Rule(id=f"{name}-rule", label="R", pattern="x"),)
    return Principle(id=name, statement="s", rules=rules, **(fields | changes))


CONSTITUTION = default_constitution().model_copy(
    update={
        "principles": (
            principle("rejecting"),
            principle("redacting", action=Action.REDACT),
            principle("revising", action=Action.REVISE),
            principle("reviewing", action=Action.REVIEW),
            principle("observed", mode=Mode.SHADOW),
            principle("lenient", threshold=0.9),
        )
    }
)


def question(*findings: tuple[str, float], constitution: Constitution = CONSTITUTION) -> dict[str, Any]:
    return {
        "constitution": constitution.digest,
        "tenant": "t",
        "workload": "w",
        "model": "",
        "findings": [{"principle": name, "rule": "r", "score": score, "role": "user"} for name, score in findings],
    }


async def allow(_body: bytes) -> bytes:
    return response(orjson.dumps({"allow": True, "confidence_score": 0.99, "violations": []}))


@pytest.fixture(scope="module")
def opa_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("opa")


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PolicyEngine]:
    async with AsyncExitStack() as stack:
        yield await make(request.param, stack, tmp_path)


async def make(kind: str, stack: AsyncExitStack, folder: Path) -> PolicyEngine:
    bundle = bundle_of(CONSTITUTION)
    local = RegorusEngine(bundle)
    if kind == "regorus":
        return local
    url = opa(stack, folder) if kind in {"opa", "layered"} else await stack.enter_async_context(engine_server(allow))
    connection = EngineConnection(url, deadline_seconds=10.0, connections=4)
    stack.push_async_callback(connection.close)
    if kind.startswith("acgs"):
        asks, path = (as_served, "/v1/evaluate") if kind == "acgs" else (as_called, "/api/v1/evaluate")
        return AcgsEngine(connection, path=path, question=asks, governance_hash="cdd01ef066bc6cf2", local=local)
    remote = OpaEngine(connection, revision=bundle.revision)
    return LayeredEngine(remote, local) if kind == "layered" else remote


def opa(stack: AsyncExitStack, folder: Path) -> str:
    executable = opa_server.executable()
    if executable is None:
        pytest.skip("needs an opa binary: `make opa` builds one")
    server = opa_server.OpaServer(folder=folder, executable=executable)
    stack.callback(server.stop)
    return server.start(bundle_of(CONSTITUTION))


SINGLE = [
    ((), "accept", 1.0, (), ()),
    ((("rejecting", 1.0),), "reject", 0.0, ("rejecting",), ()),
    ((("redacting", 1.0),), "redact", 1.0, ("redacting",), ("redacting",)),
    ((("revising", 0.8),), "revise", 0.2, ("revising",), ()),
    ((("reviewing", 0.6),), "review", 0.4, ("reviewing",), ()),
    ((("observed", 1.0),), "accept", 1.0, (), ()),
    ((("lenient", 0.89),), "accept", 1.0, (), ()),
    ((("lenient", 0.9),), "reject", 0.1, ("lenient",), ()),
    ((("rejecting", 0.49),), "accept", 1.0, (), ()),
    ((("nobody-knows", 1.0),), "reject", 1.0, ("unknown-principle",), ()),
    ((("revising", 1.0), ("reviewing", 1.0)), "review", 0.0, ("reviewing", "revising"), ()),
    ((("revising", 1.0), ("redacting", 1.0)), "revise", 0.0, ("revising",), ("redacting",)),
    ((("rejecting", 1.0), ("redacting", 1.0)), "reject", 0.0, ("rejecting",), ("redacting",)),
]


async def test_a_decision_follows_from_its_findings(engine: PolicyEngine) -> None:
    decisions = await engine.evaluate([question(*findings) for findings, *_ in SINGLE])
    for decision, (findings, verdict, score, reasons, redact) in zip(decisions, SINGLE, strict=True):
        got = decision.result
        assert (got.verdict, got.reasons, got.redact) == (verdict, reasons, redact), findings
        assert got.score == pytest.approx(score), findings
        assert (decision.decided_by, decision.policy_revision) == (engine.name, engine.revision)


async def test_every_engine_decides_as_the_one_in_process_does(engine: PolicyEngine) -> None:
    names = [one.id for one in CONSTITUTION.principles]
    scores = itertools.cycle((0.3, 0.5, 0.95, 1.0))
    inputs = [
        question(*((name, next(scores)) for name in chosen))
        for size in range(len(names) + 1)
        for chosen in itertools.combinations(names, size)
    ]
    expected = await RegorusEngine(bundle_of(CONSTITUTION)).evaluate(inputs)
    assert [made.result for made in await engine.evaluate(inputs)] == [made.result for made in expected]


async def test_batches_of_any_size_keep_their_order(engine: PolicyEngine) -> None:
    for count in (0, 1, 63, 64, 65, 200):
        inputs = [question(("lenient", 1.0 if number % 3 else 0.1)) for number in range(count)]
        verdicts = [made.result.verdict for made in await engine.evaluate(inputs)]
        assert verdicts == ["reject" if number % 3 else "accept" for number in range(count)]


async def test_a_sample_of_another_constitution_has_no_decision_and_takes_none_from_others(
    engine: PolicyEngine,
) -> None:
    foreign = {**question(), "constitution": "sha256:other"}
    with pytest.raises(PolicyError) as refused:
        await engine.evaluate([question(), foreign, question()])
    assert not isinstance(refused.value, PolicyUnavailableError)


async def test_an_opa_with_another_policy_is_no_engine_of_ours(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        connection = EngineConnection(opa(stack, tmp_path), deadline_seconds=10.0, connections=1)
        stack.push_async_callback(connection.close)
        other = OpaEngine(connection, revision="sha256:another")
        with pytest.raises(PolicyUnavailableError):
            await other.evaluate([question()])


async def test_an_acgs_engine_may_veto_and_its_violations_are_the_reasons() -> None:
    async def deny(_body: bytes) -> bytes:
        return response(b'{"allow": false, "confidence_score": 0.1, "violations": ["no-consent"]}')

    async with engine_server(deny) as url:
        connection = EngineConnection(url, deadline_seconds=10.0, connections=1)
        local = RegorusEngine(bundle_of(CONSTITUTION))
        engine = AcgsEngine(
            connection, path="/v1/evaluate", question=as_served, governance_hash="cdd01ef066bc6cf2", local=local
        )
        (decision,) = await engine.evaluate([question(("redacting", 1.0))])
        await connection.close()
    assert (decision.result.verdict, decision.result.reasons, decision.result.redact) == ("reject", ("no-consent",), ())
    assert decision.decided_by == "acgs+regorus"


async def test_an_opa_is_asked_whether_it_holds_our_policy(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        connection = EngineConnection(opa(stack, tmp_path), deadline_seconds=10.0, connections=1)
        stack.push_async_callback(connection.close)
        await OpaEngine(connection, revision=bundle_of(CONSTITUTION).revision).require()
        with pytest.raises(PolicyUnavailableError):
            await OpaEngine(connection, revision="sha256:another").require()
