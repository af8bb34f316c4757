"""The registry stage: which adapters serve which workload, changed by signed commands."""

from collections.abc import Sequence

import orjson
from pydantic import ValidationError

from ctrainer.agents.commands import CommandDesk
from ctrainer.agents.events import event_record
from ctrainer.agents.records import OutputRecord, Record, RecordBatch
from ctrainer.agents.releases import Shelf
from ctrainer.agents.world import Topics
from ctrainer.schemas.adapters import AdapterPublished, AdapterReleased
from ctrainer.schemas.envelope import event_type
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.topics import ADAPTERS_PUBLISHED
from ctrainer.schemas.training import CanaryAdapter, PromoteAdapter, RollbackAdapter

_KINDS: tuple[type[AdapterPublished | AdapterReleased], ...] = (AdapterPublished, AdapterReleased)
_ENTRIES = {event_type(kind): kind for kind in _KINDS}


class AdapterRegistry:
    """The handler of `training.requests` for releases of adapters; everything else there is the training desk's.

    `training.requests` and `adapters.published` have one partition each, so changes happen one after the other.
    """

    def __init__(self, *, desk: CommandDesk, topics: Topics) -> None:
        self._desk = desk
        self._topics = topics

    async def __call__(self, batch: RecordBatch) -> Sequence[OutputRecord]:
        """Answer every command; each finds what the ones before it in the batch brought about."""
        outputs: list[OutputRecord] = []
        for record in batch.records:
            outputs.extend(await self._answer(record, outputs))
        return outputs

    async def _answer(self, record: Record, earlier: Sequence[OutputRecord]) -> Sequence[OutputRecord]:
        try:
            command = self._desk.read(record)
        except ContractError:
            # The training desk reads the same record and gives it its dead letter.
            return []
        if not isinstance(command, PromoteAdapter | CanaryAdapter | RollbackAdapter):
            return []
        answer = self._desk.objection(record, command)
        if answer is None:
            shelf = await read_shelf(self._topics, command.tenant, earlier)
            decided = shelf.after(command, signed_by=self._desk.signer(record))
            if isinstance(decided, AdapterReleased):
                return [self._released(record, decided)]
            answer = decided
        return [self._desk.refused(record, command, answer)]

    def _released(self, record: Record, release: AdapterReleased) -> OutputRecord:
        return event_record(
            topic=ADAPTERS_PUBLISHED,
            key=f"{release.tenant}/releases/{release.workload}",
            data=release,
            cause=record,
            constitution=self._desk.in_force(),
        )


async def read_shelf(topics: Topics, tenant: str, later: Sequence[OutputRecord] = ()) -> Shelf:
    """Return what `adapters.published`, and then `later` records, say of a tenant.

    The topic keeps its records for ever: an adapter whose entry an older version wrote cannot be served.
    """
    records: list[Record | OutputRecord] = [record async for record in topics.read_topic(ADAPTERS_PUBLISHED)]
    adapters: dict[str, AdapterPublished] = {}
    releases: dict[str, AdapterReleased] = {}
    for record in (*records, *later):
        entry = _entry(record)
        if isinstance(entry, AdapterPublished) and entry.tenant == tenant:
            adapters[entry.adapter_id] = entry
        elif isinstance(entry, AdapterReleased) and entry.tenant == tenant:
            releases[entry.workload] = entry
    return Shelf(adapters=adapters, releases=releases)


def _entry(record: Record | OutputRecord) -> AdapterPublished | AdapterReleased | None:
    envelope = orjson.loads(record.value or b"{}")
    kind = _ENTRIES.get(envelope.get("type"))
    try:
        return kind.model_validate(envelope["data"]) if kind else None
    except ValidationError:
        return None
