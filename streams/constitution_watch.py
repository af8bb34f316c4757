"""Keeps the constitution in force up to date with `constitution.updates` in this process."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ctrainer.agents.compliance.loading import ConstitutionError
from ctrainer.agents.constitutions import ConstitutionDesk
from ctrainer.agents.force import Force, Judges
from ctrainer.agents.records import Record
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.topics import CONSTITUTION_UPDATES
from ctrainer.streams.topic_follower import TopicFollower

_LOG = logging.getLogger(__name__)


async def latest_constitution(
    records: AsyncIterator[Record], desk: ConstitutionDesk, otherwise: Constitution
) -> Constitution:
    """Return the last document that may come into force."""
    latest = otherwise
    async for record in records:
        latest = _readable(record, desk) or latest
    return latest


class ConstitutionWatch:
    """Enacts each new document: whatever begins a batch after that judges by it."""

    def __init__(self, *, desk: ConstitutionDesk, force: Force, appoint: Callable[[Constitution], Judges]) -> None:
        self._desk = desk
        self._force = force
        self._appoint = appoint
        self._latest: Constitution | None = None

    def follower(self, *, bootstrap_servers: str, security: Mapping[str, Any]) -> TopicFollower:
        """Return the service that watches."""
        return TopicFollower(
            bootstrap_servers=bootstrap_servers,
            security=security,
            topics=[CONSTITUTION_UPDATES],
            apply=self._apply,
            changed=self._enact,
        )

    def _apply(self, record: Record) -> None:
        self._latest = _readable(record, self._desk) or self._latest

    def _enact(self) -> None:
        latest = self._latest
        if latest is None or latest.digest == self._force.reference().digest:
            return
        self._force.enact(self._appoint(latest))
        _LOG.info("constitution %s version %s is in force: %s", latest.id, latest.version, latest.digest)


def _readable(record: Record, desk: ConstitutionDesk) -> Constitution | None:
    """Return the document of a record; one that is refused changes nothing, and the constitution stage says why."""
    try:
        return desk.read(record)
    except ConstitutionError as error:
        _LOG.warning("constitution.updates/%d/%d is refused: %s", record.partition, record.offset, error.faults[0])
        return None
