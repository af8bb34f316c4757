import json
from typing import Any

import pytest
from typer.testing import CliRunner

from ctrainer.streams.budget_history import burn_down
from ctrainer.streams.cli import app
from ctrainer.streams.commands.budget import BudgetRefusedError, cost_on_top
from ctrainer.trainer.accounting import NOTHING, compose, epsilon_of, rdp_of_step
from ctrainer.trainer.plan import PrivacyPlan

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


def test_a_simulation_answers_as_the_ledger_would() -> None:
    step = rdp_of_step(0.015, 0.6)
    plan = PrivacyPlan(
        noise_multiplier=0.6,
        sampling_rate=0.015,
        expected_batch_size=6,
        clip_norm=1.0,
        steps=40,
        delta=1e-5,
        epsilon_ceiling=8.0,
        epsilon_planned=5.0,
    )
    fresh = cost_on_top(NOTHING, plan)
    assert (fresh["spent"], fresh["granted"]) == (0.0, True)
    assert fresh["after"] == pytest.approx(epsilon_of(compose(NOTHING, step, 40), 1e-5))
    full = cost_on_top(compose(NOTHING, step, 5_000), plan)
    assert (full["after"], full["granted"], full["granted_steps"]) == (None, False, 0)


def test_a_long_burn_down_fits_a_terminal_and_ends_with_the_newest() -> None:
    shares = [1 - number / 1_000 for number in range(1_001)]
    assert len(burn_down(shares)) <= 60
    assert burn_down(shares)[-1] == " "
