import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import (
    Decision,
    PolicyEngine,
    PolicyError,
    PolicyInput,
    PolicyResult,
    PolicyUnavailableError,
    RegorusEngine,
    bundle_of,
)
from ctrainer.agents.compliance.verdicts import VerdictCache
from ctrainer.agents.force import appoint
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.screening import Screening
from ctrainer.agents.tally import Tally
from ctrainer.schemas.compliance import SampleJudged, Verdict
from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH
from ctrainer.schemas.envelope import Event
from ctrainer.schemas.message import Message
from ctrainer.schemas.samples import AcceptedSample, ParkedSample, SlowLane, digest_of_conversation

EXAMPLES = Path(__file__).parents[3] / "examples" / "flywheel.jsonl"
CONSTITUTION = default_constitution()
COURT = Court(CONSTITUTION)


class CountingEngine:
    name = "counting"
    revision = "sha256:policy"
    is_pure = True
    decided_by = "counting"

    def __init__(self) -> None:
        self.inputs: list[PolicyInput] = []

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        self.inputs += inputs
        result = PolicyResult(verdict=Verdict.ACCEPT, score=1.0, reasons=(), redact=())
        return [Decision(result=result, decided_by=self.decided_by, policy_revision=self.revision) for _ in inputs]


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


def screening_with(engine: PolicyEngine, cache: VerdictCache | None = None) -> Screening:
    judges = appoint(COURT, engine, cache=cache)
    return Screening(judges=lambda: judges)


async def decided(screening: Screening, records: RecordBatch) -> list[OutputRecord]:
    """Return the outputs without the event that says which constitution is in force."""
    return [output for output in await screening(records) if output.topic != "constitution.events"]


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
    return asyncio.run(decided(screening_with(engine()), batch(*values, headers=headers)))


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
    screening = screening_with(counting)
    await screening(batch(*[logged(f"Question {number}") for number in range(50)], logged(client="other")))
    await screening(batch(logged("Another one")))
    assert len(counting.inputs) == 2


async def test_a_shared_cache_spares_the_evaluation() -> None:
    cache, counting = RememberingCache(), CountingEngine()
    first = await screening_with(counting, cache)(batch(logged()))
    second = await screening_with(counting, cache)(batch(logged()))
    assert first == second
    assert len(counting.inputs) == 1


async def test_a_cached_value_that_cannot_be_read_is_decided_anew() -> None:
    screening = screening_with(engine(), RememberingCache(answer=b"junk"))
    (event,) = await decided(screening, batch(logged("Write ransomware that spreads")))
    assert data_of(event)["verdict"] == "reject"


async def test_an_undefined_decision_is_an_error_and_never_a_permission() -> None:
    other = CONSTITUTION.model_copy(update={"version": "other"})
    with pytest.raises(PolicyError):
        await screening_with(RegorusEngine(bundle_of(other)))(batch(logged()))


class DownEngine(CountingEngine):
    """An engine that cannot be asked."""

    async def evaluate(self, inputs: Sequence[PolicyInput]) -> list[Decision]:
        self.inputs += inputs
        raise PolicyUnavailableError("connection refused")


async def test_without_any_policy_layer_a_sample_is_parked_and_asked_about_again() -> None:
    down = DownEngine()
    screening = screening_with(down, RememberingCache())
    parked, event = await decided(screening, batch(logged("My SSN is 219-09-9999")))
    assert parked.topic == "samples.slow-lane"
    waiting = ParkedSample.from_json(parked.value)
    assert (waiting.waits_for, waiting.attempt) == (SlowLane.POLICY, 1)
    assert waiting.messages[0].content == "My SSN is 219-09-9999", "it is judged again as it came"
    assert (data_of(event)["verdict"], data_of(event)["reasons"]) == ("park", ["policy-unavailable"])
    await screening(batch(logged("My SSN is 219-09-9999")))
    assert len(down.inputs) == 2, "an outage is never remembered"


async def test_what_a_fallback_decided_is_not_kept_under_the_name_of_the_engine() -> None:
    fallback, cache = CountingEngine(), RememberingCache()
    fallback.decided_by = "fallback"
    screening = screening_with(fallback, cache)
    await screening(batch(logged()))
    await screening(batch(logged()))
    assert (len(fallback.inputs), cache.values) == (2, {})


async def test_everything_published_reads_as_the_models_of_the_contract() -> None:
    outputs = await screening_with(engine())(batch(*EXAMPLES.read_bytes().splitlines()))
    models: dict[str, type[Message]] = {"samples.accepted": AcceptedSample, "compliance.events": Event[SampleJudged]}
    published = [output for output in outputs if output.topic in models]
    assert len(published) > 1000
    for output in published:
        read = models[output.topic].from_json(output.value)
        assert json.loads(read.to_json()) == json.loads(output.value or b"")
        if isinstance(read, AcceptedSample):
            assert read.content_digest == digest_of_conversation(read.messages, read.tools)


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


async def test_another_constitution_holds_from_an_exact_record_on_and_the_event_says_which() -> None:
    strict = CONSTITUTION.model_copy(update={"version": "stricter"})
    before, after = appoint(COURT, engine()), appoint(Court(strict), RegorusEngine(bundle_of(strict)))
    in_force = [before]
    screening = Screening(judges=lambda: in_force[0])
    first = batch(logged(), logged())
    await screening(first)
    in_force[0] = after
    second = first.__class__(topic=first.topic, partition=2, epoch=1, records=batch(*[logged()] * 5).records[2:])
    for _ in range(2):
        event, *outputs = await screening(second)
        assert event.topic == "constitution.events", "also when the batch comes again after a failed transaction"
        assert data_of(event)["from_offset"] == 2
        assert data_of(event)["constitution"]["digest"] == strict.digest
        digests = {json.loads(output.value or b"")["constitutiondigest"] for output in outputs[1::2]}
        assert digests == {strict.digest}
    third = first.__class__(topic=first.topic, partition=2, epoch=1, records=batch(*[logged()] * 6).records[5:])
    assert [output.topic for output in await screening(third)] == ["samples.accepted", "compliance.events"]


async def test_judging_is_tallied_by_verdict_principle_and_source() -> None:
    tally = Tally()
    judges = appoint(COURT, engine(), tally=tally)
    values = [logged(), logged("Where is my other parcel?"), logged("Call it 219-09-9999")]
    await Screening(judges=lambda: judges)(batch(*values))
    await Screening(judges=lambda: judges)(batch(*values))
    assert tally.verdicts == {"accept": 4, "redact": 2}
    assert tally.findings["privacy-identity", "enforce"] == 2
    assert tally.answers == {"memory": 3, "shared": 0, "policy": 2}


def long_record(*questions: str) -> bytes:
    value = json.loads(logged())
    value["request"]["messages"] = [{"role": "user", "content": question} for question in questions]
    return json.dumps(value).encode()


def test_a_record_of_a_thousand_messages_is_judged_and_one_more_is_a_dead_letter() -> None:
    turns = [f"Question {number}" for number in range(999)]
    sample, event = screened(long_record(*turns, "mail ann@corp.test"))
    assert data_of(event)["findings"][0]["message_index"] == 999
    assert AcceptedSample.from_json(sample.value).messages[999].content == "mail <EMAIL_1>"
    (letter,) = screened(long_record(*turns, "one", "two"))
    assert dict(letter.headers)["dlq.reason"] == b"too-many-messages"


def test_what_hides_at_the_end_of_a_megabyte_is_found() -> None:
    sample, _ = screened(long_record("Thank you for the recipe of the bread. " * 25_000 + "AKIAIOSFODNN7EXAMPLE"))
    assert AcceptedSample.from_json(sample.value).messages[0].content.endswith("<AWS_KEY_1>")


def test_deeply_nested_tool_arguments_are_judged_or_refused_and_never_lost() -> None:
    value = json.loads(logged())
    function = {"name": "f", "arguments": ""}
    call = {"id": "c1", "type": "function", "function": function}
    value["response"]["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    for depth in (10, 200, 5_000):
        function["arguments"] = '{"a":' * depth + '"ann@corp.test"' + "}" * depth
        outputs = screened(json.dumps(value).encode())
        assert {output.topic for output in outputs} in (
            {"samples.accepted", "compliance.events"},
            {"dead-letters"},
        )
        published = [output.value or b"" for output in outputs if output.topic != "dead-letters"]
        assert not any(b"ann@corp.test" in value for value in published)


def test_equal_decisions_on_different_samples_name_each_its_own_sample() -> None:
    outputs = screened(*[logged(f"Where is parcel {number}?", client="100%b %s \x7f<0>") for number in range(3)])
    events = [Event[SampleJudged].from_json(output.value) for output in outputs if output.topic == "compliance.events"]
    samples = [AcceptedSample.from_json(output.value) for output in outputs if output.topic == "samples.accepted"]
    assert [event.data.source.offset for event in events] == [0, 1, 2]
    assert {event.data.tenant for event in events} == {"100%b %s \x7f<0>"}
    assert [event.subject for event in events] == [event.data.sample_id for event in events]
    assert [event.data.sample_id for event in events] == [sample.sample_id for sample in samples]
    assert len({event.id for event in events}) == len({event.data.sample_id for event in events}) == 3
    digests = [digest_of_conversation(sample.messages, sample.tools) for sample in samples]
    assert [sample.content_digest for sample in samples] == digests
