"""Keeps the constitution in force up to date with `constitution.updates` in this process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
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
    return await _latest([record async for record in records], desk) or otherwise


class ConstitutionWatch:
    """Enacts each new document: whatever begins a batch after that judges by it.

    To read a large one takes its time: other work of the process goes on meanwhile.
    """

    def __init__(
        self,
        *,
        desk: ConstitutionDesk,
        force: Force,
        appoint: Callable[[Constitution], Judges],
        patience_seconds: float = 1.0,
    ) -> None:
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

        Where it cannot be told who signed them, it is tried again until it can.
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
                return await _latest(self._fresh, self._desk)
            except ConnectionError:
                await asyncio.sleep(self._patience_seconds)


async def _latest(records: Sequence[Record], desk: ConstitutionDesk) -> Constitution | None:
    return await asyncio.to_thread(_last_readable, records, desk)


def _last_readable(records: Sequence[Record], desk: ConstitutionDesk) -> Constitution | None:
    """Return the last document that may come into force, and read none before it; None where there is none.

    One that is refused changes nothing, and the constitution stage says why.
    """
    for record in reversed(records):
        try:
            return desk.read(record)
        except ConstitutionError as error:
            _LOG.warning("constitution.updates/%d/%d is refused: %s", record.partition, record.offset, error.faults[0])
    return None
