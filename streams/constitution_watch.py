"""Keeps the constitution in force in this process up to date with what `constitution.events` says was enacted."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaError

from ctrainer.agents.compliance.loading import ConstitutionError
from ctrainer.agents.constitutions import ConstitutionDesk, enacted_documents, enacted_last, is_outcome
from ctrainer.agents.force import Force, Judges
from ctrainer.agents.records import Record
from ctrainer.agents.world import Topics
from ctrainer.schemas.constitution import Constitution
from ctrainer.schemas.topics import CONSTITUTION_EVENTS
from ctrainer.streams.active_constitution import WrongConstitutionError
from ctrainer.streams.topic_follower import TopicFollower

_LOG = logging.getLogger(__name__)


async def latest_constitution(topics: Topics, desk: ConstitutionDesk, otherwise: Constitution) -> Constitution:
    """Return the last document that was enacted.

    Raises:
        WrongConstitutionError: this version cannot carry it out.
    """
    return await _latest(topics, desk) or otherwise


class ConstitutionWatch:
    """Puts each document into force that the constitution stage has enacted, for whatever begins a batch after that.

    So all workers judge by the same one, also while some have an older keyring. To read a large one takes its time:
    other work of the process goes on meanwhile.
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
        self._is_told = False
        self._one_at_a_time = asyncio.Lock()
        self._asked = self._answered = 0

    def follower(self, *, bootstrap_servers: str, security: Mapping[str, Any]) -> TopicFollower:
        """Return the service that watches."""
        return TopicFollower(
            bootstrap_servers=bootstrap_servers,
            security=security,
            topics=[CONSTITUTION_EVENTS],
            apply=self.apply,
            changed=self.enact,
        )

    def apply(self, record: Record) -> None:
        """Note whether something became of a document."""
        self._is_told = self._is_told or is_outcome(record)

    async def enact(self) -> None:
        """Put the last document that was enacted into force, if something became of one since the last call.

        While the topics cannot be read, it is tried again until they can.

        Raises:
            WrongConstitutionError: this version cannot carry it out.
        """
        if not self._is_told:
            return
        async with self._one_at_a_time:
            await self._put_latest_into_force()
            self._is_told = False

    async def taken_over(self, _partition: int, _committed_offset: int) -> None:
        """Put the last document into force that was enacted before this call: the owner before may have gone by it.

        So no partition returns to an older document because it comes to a worker that was not told yet.

        Raises:
            KafkaError: the topics cannot be read now.
            WrongConstitutionError: this version cannot carry it out.
        """
        self._asked += 1
        mine = self._asked
        async with self._one_at_a_time:
            if self._answered >= mine or self._desk.pinned_digest is not None:
                return
            # All who have asked by now are answered at once: a worker takes over many partitions together.
            upto = self._asked
            last = await enacted_last(self._topics)
            if last is not None and last.digest != self._force.reference().digest:
                await self._put_latest_into_force()
            self._answered = upto

    async def _put_latest_into_force(self) -> None:
        latest = await self._latest()
        if latest is None or latest.digest == self._force.reference().digest:
            return
        self._force.enact(self._appoint(latest))
        _LOG.info("constitution %s version %s is in force: %s", latest.id, latest.version, latest.digest)

    async def _latest(self) -> Constitution | None:
        while True:
            try:
                return await _latest(self._topics, self._desk)
            except (KafkaError, OSError):
                await asyncio.sleep(self._patience_seconds)


async def _latest(topics: Topics, desk: ConstitutionDesk) -> Constitution | None:
    return await asyncio.to_thread(_last, await enacted_documents(topics), desk)


def _last(records: Sequence[Record], desk: ConstitutionDesk) -> Constitution | None:
    """Return the last document, and read none before it; None where there is none, or this deployment has its own.

    Raises:
        WrongConstitutionError: this version cannot carry it out. An older one holds no more.
    """
    if not records or desk.pinned_digest is not None:
        return None
    try:
        return desk.read(records[-1], is_enacted=True)
    except ConstitutionError as error:
        topic, partition, offset, *_ = records[-1]
        raise WrongConstitutionError(
            f"{topic}/{partition}/{offset} was enacted, and this version cannot carry it out: {error.faults[0]}; "
            "run the version that enacted it, or name another document by CTRAINER_CONSTITUTION_DIGEST and enact it"
        ) from error
