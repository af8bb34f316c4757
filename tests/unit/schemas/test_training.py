import json
from typing import Any
from uuid import UUID

import pytest

from ctrainer.schemas.constitution_reference import GOVERNANCE_HASH, ConstitutionReference
from ctrainer.schemas.errors import ContractError
from ctrainer.schemas.training import (
    FINAL_STATES,
    CancelTraining,
    PrivacySettings,
    SealDataset,
    SessionState,
    TrainAdapter,
    read_command,
)

CONSTITUTION = ConstitutionReference(hash=GOVERNANCE_HASH, digest="sha256:ab")
COMMON: dict[str, Any] = {"request_id": UUID(int=1), "tenant": "acme", "constitution": CONSTITUTION}


@pytest.mark.parametrize(
    "command",
    [
        SealDataset(**COMMON, workloads=("chat",)),
        TrainAdapter(**COMMON, dataset_id="sha256:d5"),
        CancelTraining(**COMMON, session_id="s"),
    ],
)
def test_a_command_is_read_back_as_what_it_is(command: SealDataset | TrainAdapter | CancelTraining) -> None:
    assert read_command(command.to_json()) == command


def test_a_promise_over_the_ceilings_can_be_read_so_that_it_can_be_refused_with_reasons() -> None:
    command = TrainAdapter(**COMMON, dataset_id="d", privacy=PrivacySettings(epsilon=100.0, delta=0.5))
    assert read_command(command.to_json()) == command


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "DropEverything"},
        {"tenant": ""},
        {"tenant": "acme/other"},
        {"tenant": "acme\n"},
        {"request_id": "1"},
        {"base_model": "x" * 2_000},
        {"dataset_id": ""},
        {"dataset_id": "x" * 300},
        {"privacy": {"epsilon": 0}},
        {"privacy": {"population": "a/b"}},
        {"optimizer": {"steps": 0}},
        {"surprise": 1},
    ],
)
def test_what_is_no_command_is_refused_without_its_text(changes: dict[str, Any]) -> None:
    value = {**json.loads(TrainAdapter(**COMMON, dataset_id="secret").to_json()), **changes}
    with pytest.raises(ContractError) as caught:
        read_command(json.dumps(value).encode())
    assert caught.value.reason == "invalid-message"
    assert "secret" not in str(caught.value)


def test_a_session_that_can_still_advance_is_not_final() -> None:
    going = {SessionState.ASSIGNED, SessionState.STARTED, SessionState.TRAINING, SessionState.PAUSED}
    assert going | FINAL_STATES == set(SessionState)
    assert not going & FINAL_STATES
