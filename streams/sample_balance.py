"""Where the samples of `flywheel.samples` are: each in exactly one place, or the sum does not come out."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from ctrainer.agents.records import Record
from ctrainer.agents.world import Topics
from ctrainer.schemas.compliance import Verdict
from ctrainer.schemas.envelope import header
from ctrainer.schemas.message import Message
from ctrainer.schemas.topics import COMPLIANCE_EVENTS, DEAD_LETTERS, FLYWHEEL_SAMPLES

Place = tuple[int, int]
"""Partition and offset of a record of `flywheel.samples`."""
_DEAD = "dead"


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


@dataclass(slots=True)
class _Outcomes:
    """The last outcome of each sample by place, and the places that have two of one attempt."""

    last: dict[Place, tuple[int, str]]
    twice: set[Place]

    def note(self, place: Place, attempt: int, outcome: str) -> None:
        """Add an outcome."""
        known = self.last.get(place)
        if known is not None and known[0] == attempt:
            self.twice.add(place)
        if known is None or attempt >= known[0]:
            self.last[place] = attempt, outcome


async def balance_of(topics: Topics) -> Balance:
    """Return the balance of all samples that `flywheel.samples` still holds.

    Outcomes are read before samples, so that none is missing only because it came later.
    """
    ends = await topics.end_offsets(FLYWHEEL_SAMPLES)
    outcomes = await _outcomes(topics)
    places = [
        (record.partition, record.offset)
        async for record in topics.read_topic(FLYWHEEL_SAMPLES)
        if record.offset < ends[record.partition]
    ]
    reached: dict[int, int] = defaultdict(lambda: -1)
    for partition, offset in outcomes.last:
        reached[partition] = max(reached[partition], offset)
    counts: dict[str, int] = defaultdict(int)
    for partition, offset in places:
        missing = "lost" if offset < reached[partition] else "waiting"
        counts[outcomes.last.get((partition, offset), (0, missing))[1]] += 1
    return Balance(
        received=len(places),
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
        twice=len(outcomes.twice.intersection(places)),
    )


async def _outcomes(topics: Topics) -> _Outcomes:
    found = _Outcomes({}, set())
    async for record in topics.read_topic(COMPLIANCE_EVENTS):
        for place, attempt, verdict in _judged(record):
            found.note(place, attempt, verdict)
    async for record in topics.read_topic(DEAD_LETTERS):
        if header(record.headers, "dlq.src.topic") == FLYWHEEL_SAMPLES:
            partition, offset = (header(record.headers, f"dlq.src.{name}") for name in ("partition", "offset"))
            found.note((int(partition or -1), int(offset or -1)), 0, _DEAD)
    return found


def _judged(record: Record) -> Iterator[tuple[Place, int, str]]:
    """Yield place, attempt and verdict of a decision; other records of the topic have none."""
    try:
        data = orjson.loads(record.value or b"")["data"]
        source, verdict = data["source"], data["verdict"]
        if source["topic"] == FLYWHEEL_SAMPLES:
            yield (source["partition"], source["offset"]), data["attempt"], verdict
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return
