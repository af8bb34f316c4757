"""Which partitions wait because the model that rewrites has collapsed: what `constitution.events` says of it.

So a halt outlives every worker, and ends only when a person lifts it or another model is named.
"""

from typing import NamedTuple

from ctrainer.agents.events import read_event
from ctrainer.agents.world import Topics
from ctrainer.schemas.envelope import event_type
from ctrainer.schemas.revision import RevisionHalted, RevisionResumed
from ctrainer.schemas.topics import CONSTITUTION_EVENTS

_HALTED, _RESUMED = (f'"{event_type(kind)}"'.encode() for kind in (RevisionHalted, RevisionResumed))


class Halted(NamedTuple):
    """What is halted: a partition of `samples.slow-lane`, for one model."""

    partition: int
    model: str


async def halts(topics: Topics) -> dict[Halted, RevisionHalted]:
    """Return the halts that nobody has lifted; the topic has one partition, so the last word on each is known."""
    found: dict[Halted, RevisionHalted] = {}
    async for record in topics.read_topic(CONSTITUTION_EVENTS):
        value = record.value or b""
        if _HALTED in value:
            halted = read_event(value, RevisionHalted)
            found[Halted(halted.partition, halted.model)] = halted
        elif _RESUMED in value:
            resumed = read_event(value, RevisionResumed)
            found.pop(Halted(resumed.partition, resumed.model), None)
    return found
