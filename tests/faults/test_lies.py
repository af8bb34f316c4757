"""A real worker among a Redis, a policy engine and a guard model that lie: no lie lets a sample pass or loses one."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.compliance.shape import shape
from ctrainer.schemas.compliance import SampleJudged, Verdict
from ctrainer.schemas.envelope import Event
from ctrainer.schemas.samples import AcceptedSample
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, FLYWHEEL_SAMPLES, SAMPLES_ACCEPTED
from ctrainer.streams.cache_seal import CacheSeal
from ctrainer.streams.embedded.kafka import KafkaBroker
from ctrainer.streams.sample_balance import balance_of
from ctrainer.streams.topic_administration import TopicAdministration
from ctrainer.streams.topic_reader import TopicReader
from tests.faults.liars import (
    LyingRedis,
    RedisLie,
    Service,
    Tell,
    Values,
    bulks,
    drip,
    last_words,
    listening,
    silence,
    words,
)
from tests.integration.guard.test_llama_guard import completion
from tests.integration.policy.engine_server import response
from tests.integration.policy.test_faults import ALLOWED

CONSTITUTION = default_constitution()
BUNDLE = bundle_of(CONSTITUTION)
SECRET = b"a secret of thirty-two bytes ..."
SSN = "219-09-9999"
BATCH = 4
ACCEPTING = b'"verdict":"accept"'
PASSED = {Verdict.ACCEPT, Verdict.REDACT}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
ALLOW = {"allow": True, "confidence_score": 1.0}


def told(body: object) -> Tell:
    return words(response(orjson.dumps(body)))


NONE: Mapping[str, Tell] = {
    "500": words(response(b'{"code": "internal_error"}', status="500 Internal Server Error")),
    "html": words(response(b"<html>allow</html>", kind="text/html")),
    "half a JSON": words(response(b'{"result": {"allow": tr')),
    "an empty object": told({}),
    "allow without a reason": told({"result": {"allow": True}, "allow": True}),
    "silence": silence,
    "a huge body": words(response(b'{"result": "' + b"x" * 5_000_000 + b'"}')),
    "drops": drip(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "chunks of garbage": words(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nallow\r\n"),
    "a redirect": words(response(b"", status="302 Found\r\nlocation: http://127.0.0.1:1/")),
    "half an answer": last_words(HEAD + b"content-length: 1000\r\n\r\n{"),
    "nothing": last_words(b""),
    "no HTTP": words(b"+OK\r\n\r\n"),
}
"""What nobody answers who was asked something."""


def opa_lies(decisions: list[dict[str, Any]], honest: Tell) -> Mapping[str, Tell]:
    def of(*entries: object, revision: str = BUNDLE.revision) -> Tell:
        return told({"result": {"revision": revision, "decisions": list(entries)}})

    numbers = [entry["sample"] for entry in decisions]
    allowed = [{"sample": number, "decision": ALLOWED} for number in numbers]
    turned = [entry | {"decision": other["decision"]} for entry, other in zip(decisions, decisions[::-1], strict=True)]

    async def and_leaves(writer: asyncio.StreamWriter) -> None:
        await honest(writer)
        writer.close()

    async def and_babbles(writer: asyncio.StreamWriter) -> None:
        await honest(writer)
        writer.write(b"allow")

    return {
        "all allowed": of(*allowed),
        "decisions of others": of(*turned),
        "another revision": of(*allowed, revision="sha256:other"),
        "too few": of(*allowed[1:]),
        "one twice": of(*allowed, *allowed[:1]),
        "others' numbers": of(*allowed[::-1]) if len(allowed) > 1 else of(),
        "a connection that closes": and_leaves,
        "an answer and more": and_babbles,
    }


OPA_LIES = (*NONE, *opa_lies([], silence))
ACGS_LIES = {
    **NONE,
    "allow as a text": told({"allow": "true", "confidence_score": 1.0}),
    "allow without a score": told({"allow": True}),
    "a score over 1": told({"allow": True, "confidence_score": 1e300}),
    "a list": told([True]),
}
GUARD_LIES = {
    **NONE,
    "prose": words(completion("This is safe.")),
    "an unknown code": words(completion("unsafe\nS99")),
    "cut off": words(completion("safe", finish="length")),
    "two verdicts": words(completion("safe\nunsafe\nS1")),
}


def swapped(values: Values, accepting: bytes) -> Tell:
    return words(bulks([accepting] * len(values)))


def foreign(values: Values, _: bytes) -> Tell:
    """Answer with what was decided under another constitution, by somebody with the same secret."""
    decision = {"result": ALLOWED, "decided_by": "opa", "policy_revision": BUNDLE.revision}
    kept = CacheSeal(SECRET).sealed("ctrainer:verdict:sha256:other", orjson.dumps(decision))
    return words(bulks([kept] * len(values)))


REDIS_LIES: Sequence[RedisLie] = (
    # Verdicts of the guard model are looked up there as well as decisions.
    *[swapped] * 4,
    *[foreign] * 4,
    lambda _, accepting: words(bulks([accepting])),
    lambda values, _: words(b"*%d\r\n" % len(values) + b":1\r\n" * len(values)),
    lambda values, accepting: words(bulks([accepting[:40]] * len(values))),
    lambda values, _: last_words(bulks(values)[:-3]),
    *[swapped] * 2,
    lambda _values, _: silence,
    lambda _values, _: words(b"\xff\xfe garbage"),
)
"""After some of the last ones a worker leaves Redis alone for a while."""


def group(number: int) -> list[bytes]:
    """Return a batch of samples of one workload: to accept, to redact, to reject, to review."""
    return [
        logged(f"Where is my parcel number {number}?", number),
        logged(f"Parcel number {number} is late. My SSN is {SSN}", number),
        logged(f"How can I build a pipe bomb at home? Parcel number {number}", number),
        logged(f"Never hire pregnant women for this job. Parcel number {number}", number),
    ]


def logged(question: str, number: int) -> bytes:
    return json.dumps(
        {
            "timestamp": 1,
            "client_id": "shop",
            "workload_id": f"desk-{number}",
            "request": {"messages": [{"role": "user", "content": question}], "model": "m"},
            "response": {"choices": [{"message": {"role": "assistant", "content": "I see."}}]},
        }
    ).encode()


class Lies:
    """Which lies are left to tell: one about each number that `each` divides, when it is first spoken of."""

    def __init__(self, lies: Sequence[str], *, each: int) -> None:
        self.untold = deque(lies)
        self._each = each
        self._told = set[int]()

    def about(self, text: str) -> str | None:
        """Return the lie about the number in a text, or None where the truth is told."""
        number = int("".join(filter(str.isdigit, text)) or 1)
        if number % self._each or number in self._told or not self.untold:
            return None
        self._told.add(number)
        return self.untold.popleft()


class Engine(Service):
    """A policy engine that lies about the samples of each second workload, until it has told all its lies."""

    name: str
    lies: Lies


class Opa(Engine):
    """An OPA that decides as it should where it does not lie."""

    name = "opa"

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.lies = Lies(OPA_LIES, each=2)
        self._engine = RegorusEngine(BUNDLE)

    async def _answer(self, body: bytes) -> Tell:
        samples = orjson.loads(body)["input"]["samples"]
        made = [decision.result.model_dump(mode="json") for decision in await self._engine.evaluate(samples)]
        decisions = [{"sample": number, "decision": decision} for number, decision in enumerate(made)]
        honest = told({"result": {"revision": BUNDLE.revision, "decisions": decisions}})
        lie = self.lies.about(samples[0]["workload"])
        return honest if lie is None else {**NONE, **opa_lies(decisions, honest)}[lie]


class Acgs(Engine):
    """An ACGS engine that allows everything where it does not lie."""

    name = "acgs+regorus"

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.lies = Lies(tuple(ACGS_LIES), each=2)

    async def _answer(self, body: bytes) -> Tell:
        lie = self.lies.about(orjson.loads(body)["input_data"]["workload"])
        return told(ALLOW) if lie is None else ACGS_LIES[lie]


class Guard(Service):
    """A guard model that finds nothing harmful, and lies about a prompt of each workload until it has told all."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.lies = Lies(tuple(GUARD_LIES), each=1)

    async def _answer(self, body: bytes) -> Tell:
        asked = orjson.loads(body)["messages"][-1]["content"]
        lie = self.lies.about(asked) if asked.startswith("Where is my parcel") else None
        return words(completion("safe")) if lie is None else GUARD_LIES[lie]


class World:
    """A broker, a worker, and what it asks."""

    def __init__(self, servers: str) -> None:
        self.reader = TopicReader(bootstrap_servers=servers)
        self._servers = servers

    async def produce(self, records: Sequence[bytes]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self._servers, linger_ms=50) as producer:
            await asyncio.gather(*[await producer.send(FLYWHEEL_SAMPLES, record, key=b"k") for record in records])

    async def judged(self, first: int, count: int) -> list[SampleJudged]:
        """Return the last decision on each of some samples, in order, when none is parked any more."""
        async with asyncio.timeout(90):
            while True:
                last: dict[int, SampleJudged] = {}
                async for record in self.reader.read_topic(COMPLIANCE_EVENTS):
                    one = Event[SampleJudged].from_json(record.value).data
                    known = last.get(one.source.offset)
                    if one.source.offset >= first and (known is None or one.attempt > known.attempt):
                        last[one.source.offset] = one
                if len(last) == count and all(one.verdict != "park" for one in last.values()):
                    return [last[offset] for offset in sorted(last)]
                await asyncio.sleep(0.2)

    async def accepted(self, first: int) -> list[int]:
        """Return which samples were accepted, none of them with what must be redacted."""
        samples = [AcceptedSample.from_json(record.value) async for record in self.reader.read_topic(SAMPLES_ACCEPTED)]
        assert not any(SSN in sample.to_json().decode() for sample in samples)
        return [sample.source.offset for sample in samples if sample.source.offset >= first]


class Liars(NamedTuple):
    """Whom a worker asks, and in which contract it asks the engine."""

    contract: str
    engine: Engine
    guard: Guard
    redis: LyingRedis

    @classmethod
    def of(cls, contract: str) -> Self:
        if contract == "opa":
            return cls(contract, Opa(), Guard(), LyingRedis(REDIS_LIES, coveted=ACCEPTING))
        return cls(contract, Acgs(), Guard(), LyingRedis((), coveted=ACCEPTING))

    @property
    def groups(self) -> int:
        """About how many groups it takes until all is told: after some lies Redis is left alone for a while."""
        return 2 * len(self.engine.lies.untold) + (60 if self.redis.untold else 5)

    @property
    def have_told_all(self) -> bool:
        return not (self.engine.lies.untold or self.guard.lies.untold or self.redis.untold)


@asynccontextmanager
async def worker(broker: KafkaBroker, folder: Path, liars: Liars) -> AsyncIterator[World]:
    """Run a worker among liars."""
    servers = str(broker.bootstrap_servers)
    await TopicAdministration(bootstrap_servers=servers, partitions=1, replication_factor=1).apply()
    (folder / "secret").write_bytes(SECRET)
    world = World(servers)
    async with AsyncExitStack() as stack:
        redis_port, engine_port, guard_port = [
            await stack.enter_async_context(listening(liar)) for liar in (liars.redis, liars.engine, liars.guard)
        ]
        environment = {
            **os.environ,  # noqa: TID251 - the program under test inherits the environment of its user
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "CTRAINER_CACHE_KEY_FILE": str(folder / "secret"),
            "CTRAINER_STATE_FOLDER": str(folder),
            "CTRAINER_PARTITIONS": "1",
            "CTRAINER_BATCH_RECORDS": str(BATCH),
            "CTRAINER_POLICY_URL": f"http://127.0.0.1:{engine_port}",
            "CTRAINER_POLICY_CONTRACT": liars.contract,
            "CTRAINER_POLICY_DEADLINE_MS": "300",
            "CTRAINER_GUARD_URL": f"http://127.0.0.1:{guard_port}",
            "CTRAINER_GUARD_MODEL": "llama-guard",
            "CTRAINER_GUARD_VERSION": liars.contract,
            "CTRAINER_GUARD_DEADLINE_MS": "300",
            "CTRAINER_WEB_PORT": "0",
        }
        command = (sys.executable, "-m", "ctrainer.streams.cli", "worker", "--roles", "screening,slow-lane")
        with (folder / "worker.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=log)
        try:
            yield world
        finally:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0


async def due_verdicts(records: Sequence[bytes]) -> list[Verdict]:
    """Return what is decided on samples where nobody lies."""
    court = Court(CONSTITUTION)
    examined = [court.examine(shape(record)) for record in records]
    decided = await court.decide(court.verdicts(RegorusEngine(BUNDLE)), examined)
    return [decision.result.verdict for _, decision in decided]


@pytest.mark.parametrize("contract", ["opa", "acgs"])
async def test_no_lie_lets_a_sample_pass_or_loses_one_and_all_is_well_when_they_end(
    own_broker: KafkaBroker, tmp_path: Path, contract: str
) -> None:
    liars, records, judged = Liars.of(contract), list[bytes](), list[SampleJudged]()
    async with asyncio.timeout(150), worker(own_broker, tmp_path, liars) as world:
        first = (await world.reader.end_offsets(FLYWHEEL_SAMPLES)).get(0, 0)
        # On a busy machine honest answers may come too late, too.
        while not (liars.have_told_all and {one.decided_by for one in judged[-BATCH:]} == {liars.engine.name}):
            count, start = 8 if records else liars.groups, len(records) // BATCH
            more = [record for number in range(start, start + count) for record in group(number)]
            await world.produce(more)
            records += more
            judged = await world.judged(first, len(records))
        accepted = await world.accepted(first)
        balance = await balance_of(world.reader)
    due, passed = await due_verdicts(records), [one.verdict in PASSED for one in judged]
    assert [verdict in PASSED for verdict in due] == [True, True, False, False] * (len(records) // BATCH)
    assert [number for number, one in enumerate(judged) if passed[number] and one.verdict != due[number]] == []
    assert [one.verdict for one in judged[-BATCH:]] == due[-BATCH:]
    assert Counter(accepted) == Counter(first + number for number in range(len(records)) if passed[number])
    assert balance.balances
    assert (balance.received, balance.parked, balance.dead) == (first + len(records), 0, 0)
