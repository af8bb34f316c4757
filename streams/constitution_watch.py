"""Keeps the constitution in force up to date with `constitution.updates` in this process."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaError

from ctrainer.agents.compliance.loading import ConstitutionError
from ctrainer.agents.constitutions import ConstitutionDesk, known_outcomes
from ctrainer.agents.force import Force, Judges
from ctrainer.agents.records import Record
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution import Constitution, UpdateOutcome
from ctrainer.schemas.identity import source_reference
from ctrainer.schemas.topics import CONSTITUTION_UPDATES
from ctrainer.streams.topic_follower import TopicFollower

_LOG = logging.getLogger(__name__)


async def latest_constitution(topics: Topics, desk: ConstitutionDesk, otherwise: Constitution) -> Constitution:
    """Return the last document that may come into force."""
    records = [record async for record in topics.read_topic(CONSTITUTION_UPDATES)]
    return await _latest(records, topics, desk) or otherwise


class ConstitutionWatch:
    """Enacts each new document: whatever begins a batch after that judges by it.

    To read a large one takes its time: other work of the process goes on meanwhile.
    """

    def __init__(
        self,
        *,
        topics: Topics,
        desk: ConstitutionDesk,
        force: Force,
        appoint: Callable[[Constitution], Judges],
        patience_seconds: float = 1.0,
    ) -> None:
        self._topics = topics
        self._desk = desk
        self._force = force
        self._appoint = appoint
        self._patience_seconds = patience_seconds
        self._fresh: list[Record] = []

    def follower(self, *, bootstrap_servers: str, security: Mapping[str, Any]) -> TopicFollower:
        """Return the service that watches."""
        return TopicFollower(
            bootstrap_servers=bootstrap_servers,
            security=security,
            topics=[CONSTITUTION_UPDATES],
            apply=self.apply,
            changed=self.enact,
        )

    def apply(self, record: Record) -> None:
        """Note a document."""
        self._fresh.append(record)

    async def enact(self) -> None:
        """Put the last document noted since the last call that may come into force into force, if there is one.

        Where it cannot be told who signed them, or what became of them, it is tried again until it can.
        """
        latest = await self._latest_of_fresh()
        self._fresh = []
        if latest is None or latest.digest == self._force.reference().digest:
            return
        self._force.enact(self._appoint(latest))
        _LOG.info("constitution %s version %s is in force: %s", latest.id, latest.version, latest.digest)

    async def _latest_of_fresh(self) -> Constitution | None:
        while True:
            try:
                return await _latest(self._fresh, self._topics, self._desk)
            except (KafkaError, OSError):
                await asyncio.sleep(self._patience_seconds)


async def _latest(records: Sequence[Record], topics: Topics, desk: ConstitutionDesk) -> Constitution | None:
    outcomes = await known_outcomes(topics) if records else {}
    return await asyncio.to_thread(_last_readable, records, outcomes, desk)


def _last_readable(
    records: Sequence[Record], outcomes: Mapping[str, UpdateOutcome], desk: ConstitutionDesk
) -> Constitution | None:
    """Return the last document that may come into force, and read none before it; None where there is none.

    One that is refused changes nothing, and the constitution stage says why.
    """
    for record in reversed(records):
        place = source_reference(record.topic, record.partition, record.offset)
        try:
            return desk.read(record, outcomes.get(place))
        except ConstitutionError as error:
            _LOG.warning("%s is refused: %s", place, error.faults[0])
    return None
