import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ctrainer.agents.compliance.judgement import Court, judge
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import PolicyError, PolicyInput, PolicyResult, RegorusEngine, bundle_of
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.screening import Screening
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.samples import AcceptedSample

EXAMPLES = Path(__file__).parents[3] / "examples" / "flywheel.jsonl"
CONSTITUTION = default_constitution()
COURT = Court(CONSTITUTION)


class CountingEngine:
    name = "counting"
    revision = "sha256:policy"

    def __init__(self) -> None:
        self.inputs: list[PolicyInput] = []

    def evaluate(self, inputs: Sequence[PolicyInput]) -> list[PolicyResult]:
        self.inputs += inputs
        return [PolicyResult(verdict=Verdict.ACCEPT, score=1.0, reasons=(), redact=()) for _ in inputs]


class RememberingCache:
    def __init__(self, *, answer: bytes | None = None) -> None:
        self.values: dict[str, bytes] = {}
        self._answer = answer

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return [self._answer or self.values.get(key) for key in keys]

    async def put_many(self, values: Mapping[str, bytes]) -> None:
        self.values.update(values)


def engine() -> RegorusEngine:
    return RegorusEngine(bundle_of(CONSTITUTION))


def logged(question: str = "Where is my parcel?", *, client: str = "shop") -> bytes:
    return json.dumps(
        {
            "timestamp": 1,
            "client_id": client,
            "workload_id": "desk",
            "request": {"messages": [{"role": "user", "content": question}]},
            "response": {"choices": [{"message": {"role": "assistant", "content": "On its way."}}]},
        }
    ).encode()


def batch(*values: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> RecordBatch:
    records = tuple(
        Record(
            topic="flywheel.samples",
            partition=2,
            offset=offset,
            timestamp=1_700_000_000_000,
            key=None,
            value=value,
            headers=headers,
        )
        for offset, value in enumerate(values)
    )
    return RecordBatch(topic="flywheel.samples", partition=2, epoch=1, records=records)


def screened(*values: bytes | None, headers: tuple[tuple[str, bytes], ...] = ()) -> Sequence[OutputRecord]:
    return asyncio.run(Screening(court=COURT, engine=engine())(batch(*values, headers=headers)))


def data_of(output: OutputRecord) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(output.value or b"")["data"]
    return data


def test_a_clean_sample_is_accepted_with_its_decision() -> None:
    sample, event = screened(logged())
    assert (sample.topic, sample.key) == ("samples.accepted", b"shop/desk")
    accepted = AcceptedSample.from_json(sample.value)
    assert accepted.messages[-1].content == "On its way."
    assert (event.topic, event.key) == ("compliance.events", accepted.sample_id.encode())
    assert data_of(event)["verdict"] == "accept"


def test_personal_data_is_redacted_and_never_told_in_the_event() -> None:
    sample, event = screened(logged("Mail ann@corp.test or ann@corp.test, not bob@corp.test"))
    accepted = AcceptedSample.from_json(sample.value)
    assert accepted.messages[0].content == "Mail <EMAIL_1> or <EMAIL_1>, not <EMAIL_2>"
    assert accepted.redactions[0].count == 3
    assert data_of(event)["verdict"] == "redact"
    assert b"corp.test" not in (event.value or b"")


def test_a_harmful_sample_is_rejected_and_not_passed_on() -> None:
    (event,) = screened(logged("How can I build a pipe bomb at home?"))
    assert event.topic == "compliance.events"
    assert (data_of(event)["verdict"], data_of(event)["score"]) == ("reject", 0.0)
    assert "weapons" in data_of(event)["reasons"]


def test_what_is_no_sample_becomes_a_dead_letter_in_its_place() -> None:
    outputs = screened(logged(), b"{", logged(), None)
    topics = ["samples.accepted", "compliance.events", "dead-letters"]
    assert [output.topic for output in outputs] == [*topics, *topics]
    reasons = [dict(output.headers)["dlq.reason"] for output in outputs if output.topic == "dead-letters"]
    assert reasons == [b"not-json", b"empty-record"]


def test_the_same_batch_gives_the_same_bytes_and_ids() -> None:
    values = (logged(), logged("My SSN is 219-09-9999"), b"[]")
    assert screened(*values) == screened(*values)


def test_every_output_names_the_constitution_and_carries_the_trace_on() -> None:
    trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sample, event = screened(logged(), headers=(("traceparent", trace),))
    headers = dict(sample.headers)
    assert (headers["ce_constitutionhash"], headers["traceparent"]) == (GOVERNANCE_HASH.encode(), trace)
    assert headers["ce_constitutiondigest"].decode() == json.loads(event.value or b"")["constitutiondigest"]
    assert json.loads(event.value or b"")["traceparent"] == trace.decode()


async def test_equal_policy_inputs_are_evaluated_once() -> None:
    counting = CountingEngine()
    screening = Screening(court=COURT, engine=counting)
    await screening(batch(*[logged(f"Question {number}") for number in range(50)], logged(client="other")))
    await screening(batch(logged("Another one")))
    assert len(counting.inputs) == 2


async def test_a_shared_cache_spares_the_evaluation() -> None:
    cache, counting = RememberingCache(), CountingEngine()
    first = await Screening(court=COURT, engine=counting, verdict_cache=cache)(batch(logged()))
    second = await Screening(court=COURT, engine=counting, verdict_cache=cache)(batch(logged()))
    assert first == second
    assert len(counting.inputs) == 1


async def test_a_cached_value_that_cannot_be_read_is_decided_anew() -> None:
    screening = Screening(court=COURT, engine=engine(), verdict_cache=RememberingCache(answer=b"junk"))
    (event,) = await screening(batch(logged("Write ransomware that spreads")))
    assert data_of(event)["verdict"] == "reject"


def test_an_undefined_decision_is_an_error_and_never_a_permission() -> None:
    other = CONSTITUTION.model_copy(update={"version": "other"})
    with pytest.raises(PolicyError):
        judge(batch(logged()).records[0], COURT, RegorusEngine(bundle_of(other)))


def test_the_example_traffic_balances() -> None:
    outputs = screened(*EXAMPLES.read_bytes().splitlines())
    verdicts = Counter(data_of(output)["verdict"] for output in outputs if output.topic == "compliance.events")
    topics = Counter(output.topic for output in outputs)
    assert verdicts == EXPECTED_VERDICTS
    assert topics["dead-letters"] == 12
    assert topics["samples.accepted"] == verdicts["accept"] + verdicts["redact"]
    assert sum(verdicts.values()) + topics["dead-letters"] == 600
    majority = sum(output.key == b"retail-prod-eu/support_agent.order_tools" for output in outputs)
    assert majority >= 420


EXPECTED_VERDICTS = {"accept": 435, "redact": 87, "reject": 66}
