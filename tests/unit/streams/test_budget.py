import json
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner

from ctrainer.schemas.privacy import (
    BudgetGranted,
    DeclareNonPrivate,
    LedgerRecord,
    NonPrivateDeclared,
    PrivacyUnit,
    ReserveBudget,
)
from ctrainer.streams.budget_history import ScopeHistory, burn_down
from ctrainer.streams.cli import app
from ctrainer.streams.commands.budget import BudgetRefusedError, cost_in, cost_on_top, row
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, rdp_of_step
from tests import assigned

PLAN = ["budget", "plan", "--records", "400", "--batch", "6"]


def run(*words: str) -> Any:
    return CliRunner().invoke(app, [*PLAN, *words])


def test_a_plan_needs_no_kafka_and_tells_its_epsilon_under_both_accountants() -> None:
    result = run("--steps", "40", "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    spent = compose(NOTHING, rdp_of_step(plan["sampling_rate"], plan["noise_multiplier"]), plan["steps"])
    assert plan["epsilon_rdp"] == pytest.approx(epsilon_of(spent, 1e-5))
    assert 0 < plan["epsilon_prv"] < plan["epsilon_rdp"] < 8.0
    assert plan["last_permitted_step"] >= 40 + plan["spare_steps"]
    assert (plan["unit"], plan["adjacency"]) == ("record", "add-remove")


def test_epochs_are_steps_by_the_batch() -> None:
    result = run("--epochs", "0.6", "--json")
    assert json.loads(result.stdout)["steps"] == 40


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "40", "--epsilon", "9"], "epsilon: got 9"),
        (["--steps", "40", "--order", "arrival"], "accepted: single-pass"),
        (["--steps", "40", "--epochs", "1"], "got both or neither"),
        ([], "got both or neither"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_would_be(words: list[str], expected: str) -> None:
    result = run(*words)
    assert isinstance(result.exception, BudgetRefusedError)
    assert expected in str(result.exception)


@pytest.mark.parametrize("mode", ["single-pass", "single-pass-correlated"])
def test_a_single_pass_is_planned_as_one_release(mode: str) -> None:
    plan = json.loads(run("--steps", "40", "--mode", mode, "--json").stdout)
    assert plan["epsilon_rdp"] == pytest.approx(epsilon_of(rdp_of_step(1.0, plan["noise_multiplier"]), 1e-5))
    assert (plan["mode"], plan["spare_steps"], plan["last_permitted_step"]) == (mode, 0, 40)
    assert plan["bands"] == (8 if mode == "single-pass-correlated" else 1)


def test_users_are_planned_with_their_records_or_whole() -> None:
    words = ["--steps", "40", "--unit", "user", "--json"]
    several = json.loads(run(*words, "--records-per-user", "4").stdout)
    whole = json.loads(run(*words, "--whole-users").stdout)
    record = json.loads(run("--steps", "40", "--json").stdout)
    assert several["noise_multiplier"] > whole["noise_multiplier"] == record["noise_multiplier"]
    assert several["epsilon_prv"] is None


def test_a_simulation_in_a_scope_of_another_kind_is_refused_as_the_ledger_does() -> None:
    made = replace(assigned.PLAN, noise_multiplier=2.0, sampling_rate=0.015, unit=PrivacyUnit.USER)
    request = ReserveBudget(
        reservation_id="a",
        scope="acme/default",
        tenant="acme",
        session_id="s",
        first_step=0,
        steps=1,
        mechanism=replace(made, unit=PrivacyUnit.RECORD).mechanism(),
        epsilon_ceiling=8.0,
        delta=1e-5,
    )
    grant = BudgetGranted(sequence=1, request=request, rdp=NOTHING, epsilon=0.0, alert=False)
    records = ScopeHistory(scope="acme/default").after(LedgerRecord(scope="acme/default", entry=grant))
    assert (cost_in(records, made)["granted"], cost_in(records, made)["reason"]) == (False, "promise-mixed")
    assert cost_in(records, replace(made, unit=PrivacyUnit.RECORD))["granted"] is True
    assert cost_in(None, made)["granted"] is True


def test_a_scope_shows_the_sessions_that_trained_without_privacy() -> None:
    declared = NonPrivateDeclared(
        sequence=1,
        request=DeclareNonPrivate(
            reservation_id="n", scope="acme/default", tenant="acme", session_id="s", dataset_id="d", steps=4
        ),
    )
    record = LedgerRecord(scope="acme/default", entry=declared)
    assert row(ScopeHistory(scope="acme/default").after(record).after(record))["non_private_sessions"] == 1


def test_a_simulation_answers_as_the_ledger_would() -> None:
    plan = replace(assigned.PLAN, sampling_rate=0.015)
    step = rdp_of_step(plan.sampling_rate, plan.noise_multiplier)
    fresh = cost_on_top(NOTHING, plan)
    assert (fresh["spent"], fresh["granted"]) == (0.0, True)
    assert fresh["after"] == pytest.approx(epsilon_of(compose(NOTHING, step, 40), 1e-5))
    full = cost_on_top(compose(NOTHING, step, 5_000), plan)
    assert (full["after"], full["granted"], full["granted_steps"]) == (None, False, 0)


def test_a_long_burn_down_fits_a_terminal_and_ends_with_the_newest() -> None:
    shares = [1 - number / 1_000 for number in range(1_001)]
    assert len(burn_down(shares)) <= 60
    assert burn_down(shares)[-1] == " "
