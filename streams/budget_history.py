"""What each budget scope has spent, grant by grant, as the ledger topic tells it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ctrainer.agents.events import read_event
from ctrainer.agents.records import Record
from ctrainer.schemas.privacy import BudgetGranted, LedgerRecord, NonPrivateDeclared
from ctrainer.schemas.topics import PRIVACY_LEDGER
from ctrainer.trainer.ledger import LedgerState

_BLOCKS = " ▁▂▃▄▅▆▇█"
_WIDEST = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeHistory:
    """The grants of a scope in order; `state` is its spend now.

    `non_private` are the sessions that trained on its records without privacy: no spend covers those.
    """

    scope: str
    grants: tuple[BudgetGranted, ...] = ()
    refusals: int = 0
    non_private: frozenset[str] = frozenset()
    state: LedgerState = field(default_factory=LedgerState)

    def after(self, record: LedgerRecord) -> "ScopeHistory":
        """Return the history after one more entry."""
        entry = record.entry
        if isinstance(entry, NonPrivateDeclared):
            return replace(self, non_private=self.non_private | {entry.request.session_id})
        if not isinstance(entry, BudgetGranted):
            return replace(self, refusals=self.refusals + (entry.kind == "BudgetRefused"))
        if entry.repeated:
            return self
        return replace(self, grants=(*self.grants, entry), state=replace(self.state, rdp=entry.rdp))

    def remaining(self) -> list[float]:
        """Return the share of the ceiling that was left after each grant, from 1 to 0; each at its own ceiling."""
        left = (1 - grant.epsilon / grant.request.epsilon_ceiling for grant in self.grants)
        return [1.0, *(max(0.0, share) for share in left)]


class Ledger(Protocol):
    """Yields the records of a topic."""

    def read_topic(self, topic: str, partition: int | None = None) -> AsyncIterator[Record]:
        """Yield everything the topic holds now."""
        ...


async def budget_histories(topics: Ledger) -> dict[str, ScopeHistory]:
    """Return the history of every scope by its name."""
    histories: dict[str, ScopeHistory] = {}
    async for record in topics.read_topic(PRIVACY_LEDGER):
        entry = read_event(record.value, LedgerRecord)
        histories[entry.scope] = histories.get(entry.scope, ScopeHistory(scope=entry.scope)).after(entry)
    return histories


def burn_down(shares: Sequence[float]) -> str:
    """Return shares from 1 to 0 as a row of bars, the newest at the right; long rows are thinned.

    >>> burn_down([1.0, 0.5, 0.0])
    '█▄ '
    """
    stride = -(-len(shares) // _WIDEST)
    kept = list(shares)[::-1][::stride][::-1]
    return "".join(_BLOCKS[round(share * (len(_BLOCKS) - 1))] for share in kept)
