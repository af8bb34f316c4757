"""Where the samples of `flywheel.samples` are: each in exactly one place, or the sum does not come out."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from ctrainer.agents.records import Record
from ctrainer.agents.world import Topics
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.envelope import header
from ctrainer.schemas.message import Message
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, DEAD_LETTERS, FLYWHEEL_SAMPLES, SAMPLES_SLOW_LANE
from ctrainer.streams.outcome_table import OutcomeTable, Place

_DEAD = "dead"
_OUTCOMES: tuple[str, ...] = (*Verdict, _DEAD)


class Balance(Message):
    """How many samples there are, and how many are where.

    `waiting` are not read yet. `lost` have no outcome though a later record of their partition has one; `twice` have
    more than one outcome of the same attempt: both are 0, always.
    """

    received: int
    accepted: int
    redacted: int
    revised: int
    rejected: int
    in_review: int
    to_revise: int
    parked: int
    dead: int
    waiting: int
    lost: int
    twice: int

    @property
    def balances(self) -> bool:
        """Whether nothing was lost and nothing counted twice."""
        return not self.lost and not self.twice


async def balance_of(topics: Topics) -> Balance:
    """Return the balance of all samples that `flywheel.samples` still holds; it takes five bytes of memory for each.

    Samples that come meanwhile are left out, and outcomes that come meanwhile are read as far as they reach.
    """
    ends = await topics.end_offsets(FLYWHEEL_SAMPLES)
    table = OutcomeTable()
    async for record in topics.read_topic(FLYWHEEL_SAMPLES):
        if record.offset < ends[record.partition]:
            table.add((record.partition, record.offset))
    reached = await _note_outcomes(topics, table)
    counts: Counter[str] = Counter()
    for (partition, offset), outcome, twice in table:
        missing = "lost" if offset < reached[partition] else "waiting"
        counts[missing if outcome is None else _OUTCOMES[outcome]] += 1
        counts["twice"] += twice
    return Balance(
        received=counts.total() - counts["twice"],
        accepted=counts[Verdict.ACCEPT],
        redacted=counts[Verdict.REDACT],
        revised=counts[Verdict.REVISED],
        rejected=counts[Verdict.REJECT],
        in_review=counts[Verdict.REVIEW],
        to_revise=counts[Verdict.REVISE],
        parked=counts[Verdict.PARK],
        dead=counts[_DEAD],
        waiting=counts["waiting"],
        lost=counts["lost"],
        twice=counts["twice"],
    )


async def _note_outcomes(topics: Topics, table: OutcomeTable) -> Mapping[int, int]:
    """Note every outcome, and return the highest offset of each partition that has one."""
    reached: dict[int, int] = defaultdict(lambda: -1)
    for topic, read in ((COMPLIANCE_EVENTS, _judged), (DEAD_LETTERS, _died)):
        async for record in topics.read_topic(topic):
            for (partition, offset), attempt, outcome in read(record):
                table.note((partition, offset), attempt=attempt, outcome=_OUTCOMES.index(outcome))
                reached[partition] = max(reached[partition], offset)
    return reached


def _judged(record: Record) -> Iterator[tuple[Place, int, str]]:
    """Yield place, attempt and verdict of a decision; other records of the topic have none."""
    try:
        data = orjson.loads(record.value or b"")["data"]
        yield from _outcome(data, Verdict(data["verdict"]))
    except (KeyError, TypeError, ValueError):
        return


def _died(record: Record) -> Iterator[tuple[Place, int, str]]:
    """Yield the place of a dead sample, also of one that was parked before; other dead letters have none."""
    if header(record.headers, "dlq.src.topic") == SAMPLES_SLOW_LANE:
        yield from _died_parked(record)
        return
    partition, offset = (header(record.headers, f"dlq.src.{name}") or "" for name in ("partition", "offset"))
    if header(record.headers, "dlq.src.topic") == FLYWHEEL_SAMPLES and partition.isdecimal() and offset.isdecimal():
        yield (int(partition), int(offset)), 0, _DEAD


def _died_parked(record: Record) -> Iterator[tuple[Place, int, str]]:
    try:
        yield from _outcome(orjson.loads(record.value or b""), _DEAD)
    except (KeyError, TypeError, ValueError):
        return


def _outcome(data: Mapping[str, Any], outcome: str) -> Iterator[tuple[Place, int, str]]:
    source = data["source"]
    if source["topic"] == FLYWHEEL_SAMPLES:
        yield (int(source["partition"]), int(source["offset"])), int(data["attempt"]), outcome
