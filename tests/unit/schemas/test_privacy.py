from typing import Any

import pytest
from pydantic import ValidationError

from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.privacy import BudgetGranted, LedgerRecord, Mechanism, ReserveBudget

MECHANISM = Mechanism(sampling_rate=0.02, noise_multiplier=0.8, clip_norm=1.0, expected_batch_size=8.0)


def reservation(**changes: Any) -> ReserveBudget:
    fields: dict[str, Any] = {
        "reservation_id": "a",
        "scope": "acme/default",
        "tenant": "acme",
        "session_id": "s",
        "first_step": 0,
        "steps": 16,
        "mechanism": MECHANISM,
        "epsilon_ceiling": 8.0,
        "delta": 1e-5,
    }
    return ReserveBudget.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"epsilon_ceiling": 8.000001}, {"epsilon_ceiling": 0}, {"delta": 1.01e-5}, {"delta": 0}, {"steps": 0}],
)
def test_a_reservation_beyond_the_ceilings_is_no_message(changes: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        reservation(**changes)


@pytest.mark.parametrize(
    "changes", [{"noise_multiplier": 0}, {"noise_multiplier": float("inf")}, {"sampling_rate": 1.1}, {"clip_norm": 0}]
)
def test_a_mechanism_without_noise_or_bounds_is_no_message(changes: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Mechanism.model_validate({**MECHANISM.model_dump(), **changes})


def test_a_ledger_entry_keeps_every_digit_of_the_spend() -> None:
    rdp = (0.1 + 0.2, 1e-300, 1 / 3)
    entry = BudgetGranted(sequence=1, request=reservation(), rdp=rdp, epsilon=0.1, alert=False)
    record = LedgerRecord(scope="acme/default", entry=entry)
    assert LedgerRecord.from_json(record.to_json()) == record


def test_a_ledger_entry_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ContractError):
        LedgerRecord.from_json(b'{"scope":"acme/default","entry":{"kind":"BudgetRefunded"}}')
