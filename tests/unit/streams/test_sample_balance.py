import json

import pytest

from ctrainer.agents.compliance.judgement import Court
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.agents.compliance.policy import RegorusEngine, bundle_of
from ctrainer.agents.dead_letter import dead_letter
from ctrainer.agents.force import appoint
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.screening import Screening
from ctrainer.streams.review_list import samples_in_review
from ctrainer.streams.sample_balance import Balance, balance_of
from tests.unit.agents.conftest import InMemoryTopics

CONSTITUTION = default_constitution()
QUESTIONS = [
    "Hello",
    "My SSN is 219-09-9999",
    "Never hire pregnant women for this job.",
    "How can I build a pipe bomb?",
]


def logged(question: str) -> bytes:
    return json.dumps(
        {
            "timestamp": 1,
            "client_id": "shop",
            "workload_id": "desk",
            "request": {"messages": [{"role": "user", "content": question}]},
            "response": {"choices": [{"message": {"role": "assistant", "content": "On its way."}}]},
        }
    ).encode()


@pytest.fixture
def topics() -> InMemoryTopics:
    made = InMemoryTopics()
    for value in (*map(logged, QUESTIONS), b"poison", logged("Hello again")):
        made.append(OutputRecord("flywheel.samples", b"shop/desk", value, 1))
    return made


def inputs(topics: InMemoryTopics) -> list[Record]:
    return topics.records["flywheel.samples", 0]


async def judge(topics: InMemoryTopics, records: list[Record]) -> None:
    judges = appoint(Court(CONSTITUTION), RegorusEngine(bundle_of(CONSTITUTION)))
    batch = RecordBatch(topic="flywheel.samples", partition=0, epoch=0, records=tuple(records))
    for output in await Screening(judges=lambda: judges)(batch):
        topics.append(output)


def sum_of(found: Balance) -> int:
    settled = (found.accepted, found.redacted, found.revised, found.rejected)
    counted = (*settled, found.in_review, found.to_revise, found.parked)
    return sum(counted) + found.dead + found.waiting + found.lost


async def test_every_sample_is_counted_where_it_is(topics: InMemoryTopics) -> None:
    await judge(topics, inputs(topics)[:5])
    found = await balance_of(topics)
    assert found.model_dump(exclude_defaults=False) == {
        "received": 6,
        "accepted": 1,
        "redacted": 1,
        "revised": 0,
        "rejected": 1,
        "in_review": 1,
        "to_revise": 0,
        "parked": 0,
        "dead": 1,
        "waiting": 1,
        "lost": 0,
        "twice": 0,
    }
    assert found.balances
    assert sum_of(found) == found.received


async def test_a_sample_without_outcome_before_one_that_has_one_is_lost(topics: InMemoryTopics) -> None:
    await judge(topics, [record for record in inputs(topics) if record.offset != 2])
    found = await balance_of(topics)
    assert (found.lost, found.waiting, found.balances, sum_of(found)) == (1, 0, False, found.received)


async def test_a_sample_with_two_outcomes_of_one_attempt_counts_twice(topics: InMemoryTopics) -> None:
    await judge(topics, inputs(topics))
    await judge(topics, inputs(topics)[4:5])
    found = await balance_of(topics)
    assert (found.twice, found.balances) == (1, False)


async def test_of_two_attempts_the_later_one_says_where_a_sample_is(topics: InMemoryTopics) -> None:
    await judge(topics, inputs(topics))
    in_review = next(
        record for record in topics.records["compliance.events", 0] if b'"verdict":"review"' in (record.value or b"")
    )
    value = (in_review.value or b"").replace(b'"verdict":"review"', b'"verdict":"accept"')
    later = value.replace(b'"attempt":0', b'"attempt":1')
    topics.append(OutputRecord("compliance.events", in_review.key, later, 1))
    found = await balance_of(topics)
    assert (found.accepted, found.in_review, found.balances) == (3, 0, True)


async def test_a_parked_sample_that_became_a_dead_letter_is_dead(topics: InMemoryTopics) -> None:
    await judge(topics, inputs(topics))
    (parked,) = topics.records["samples.slow-lane", 0]
    topics.append(dead_letter(parked, stage="rejudging", reason="handler-failed", message="MemoryError"))
    found = await balance_of(topics)
    assert (found.in_review, found.dead, found.balances, sum_of(found)) == (0, 2, True, found.received)


async def test_a_verdict_that_is_not_known_is_no_outcome(topics: InMemoryTopics) -> None:
    await judge(topics, inputs(topics))
    judged = topics.records["compliance.events", 0]
    judged[0] = judged[0]._replace(value=(judged[0].value or b"").replace(b'"verdict":"accept"', b'"verdict":"maybe"'))
    found = await balance_of(topics)
    assert (found.lost, found.balances, sum_of(found)) == (1, False, found.received)


async def test_what_else_lies_on_the_topics_disturbs_neither_balance_nor_review_list(topics: InMemoryTopics) -> None:
    for topic in ("compliance.events", "samples.slow-lane", "dead-letters"):
        for value in (None, b"", b"{", b"[]", b"null", b'{"data": 7}', b'{"data": {"source": [], "verdict": 1}}'):
            topics.append(OutputRecord(topic, b"key", value, 1))
    for headers in (("x", "0"), ("", ""), ("0", "-1")):
        place = zip(("dlq.src.partition", "dlq.src.offset"), (text.encode() for text in headers), strict=True)
        dead = (("dlq.src.topic", b"flywheel.samples"), *place)
        topics.append(OutputRecord("dead-letters", b"key", b"", 1, dead))
    await judge(topics, inputs(topics))
    assert (await balance_of(topics)).balances
    assert [found.sample.reasons async for found in samples_in_review(topics)] == [("discrimination",)]
