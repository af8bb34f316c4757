"""What must hold of the privacy ledger and the adapters after any number of kills, checked from outside."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ctrainer.agents.events import read_event
from ctrainer.schemas.adapters import AdapterPublished
from ctrainer.schemas.privacy import BudgetGranted, LedgerRecord
from ctrainer.streams.adapter_files import beside
from ctrainer.streams.receipt_verification import ReceiptVerifier, verify_adapter
from ctrainer.trainer.accounting import NOTHING, compose, rdp_of_step


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of noise: of which session and step, and a digest of the adapter right before it."""

    session_id: str
    step: int
    adapter: str


def read_draws(witness: Path) -> list[Draw]:
    """Return every draw of noise, in order."""
    lines = witness.read_text().splitlines() if witness.exists() else []
    return [Draw(session, int(step), adapter) for session, step, adapter in map(str.split, lines)]


def drawn_steps(draws: Iterable[Draw]) -> Counter[tuple[str, int]]:
    """Return how often the noise of each step of each session was drawn."""
    return Counter((draw.session_id, draw.step) for draw in draws)


@dataclass(frozen=True)
class Ledger:
    """Every entry of the ledger, in the order of each partition."""

    records: Sequence[LedgerRecord]
    grants: list[BudgetGranted] = field(init=False)

    def __post_init__(self) -> None:
        entries = [record.entry for record in self.records]
        charged = [entry for entry in entries if isinstance(entry, BudgetGranted) and not entry.repeated]
        object.__setattr__(self, "grants", charged)

    def verify_sequence(self) -> None:
        """No entry of a scope is missing, and none is there twice."""
        numbers: dict[str, list[int]] = defaultdict(list)
        for record in self.records:
            numbers[record.scope].append(record.entry.sequence)
        for scope, found in numbers.items():
            assert found == list(range(1, len(found) + 1)), f"{scope}: the ledger has gaps or repeats"

    def verify_one_grant_for_each_reservation(self) -> None:
        """No reservation was charged twice, which would be two grants for one."""
        counted = Counter(grant.request.reservation_id for grant in self.grants)
        assert [name for name, count in counted.items() if count > 1] == []

    def verify_sums(self) -> None:
        """Each scope has spent exactly what its grants add up to."""
        spent: dict[str, tuple[float, ...]] = defaultdict(lambda: NOTHING)
        for grant in self.grants:
            request = grant.request
            step = rdp_of_step(request.mechanism.sampling_rate, request.mechanism.noise_multiplier)
            spent[request.scope] = compose(spent[request.scope], step, request.steps)
            assert grant.rdp == pytest.approx(spent[request.scope])

    def verify_covers(self, drawn: Counter[tuple[str, int]]) -> None:
        """No noise was drawn that is not charged: a grant covers one run of each of its steps."""
        covered: Counter[tuple[str, int]] = Counter()
        for grant in self.grants:
            first, steps = grant.request.first_step, grant.request.steps
            covered.update((grant.request.session_id, step) for step in range(first, first + steps))
        under = {step: count for step, count in drawn.items() if count > covered[step]}
        assert under == {}, f"{len(under)} steps were drawn more often than charged"

    def verify(self, drawn: Counter[tuple[str, int]]) -> None:
        """Check all of it."""
        self.verify_sequence()
        self.verify_one_grant_for_each_reservation()
        self.verify_sums()
        self.verify_covers(drawn)


def verify_adapters(
    published: Iterable[AdapterPublished], drawn: Counter[tuple[str, int]], *, completed: Iterable[str]
) -> None:
    """Every adapter has a completed session, all its steps, and a receipt of its files; there is no other adapter."""
    verifier = ReceiptVerifier(requesters={}, unsafe_unsigned=True)
    sessions = []
    for adapter in published:
        sessions.append(adapter.session_id)
        assert adapter.release.passed
        assert all(drawn[adapter.session_id, step] for step in range(adapter.steps))
        read = verifier.read(beside(Path(adapter.path), "receipt"))
        verify_adapter(read, Path(adapter.path))
        assert read.receipt.steps == adapter.steps
    assert sorted(sessions) == sorted(completed)


def read_ledger(values: Iterable[bytes | None]) -> Ledger:
    """Return the ledger that a topic holds."""
    return Ledger([read_event(value, LedgerRecord) for value in values])
