import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis.rdp import get_privacy_spent

from ctrainer.trainer.accounting import NOTHING, ORDERS, compose, epsilon_of, most_steps, rdp_of_step

# Published RDP epsilons at delta 1e-5 after three epochs, as Opacus and dp-accounting compute them.
KNOWN = [
    (256 / 10_000, 117, 0.6, 8.670),
    (256 / 10_000, 117, 0.8, 4.074),
    (256 / 10_000, 117, 1.0, 2.335),
    (1024 / 10_000, 29, 0.8, 7.693),
    (256 / 100_000, 1171, 0.6, 3.717),
    (1024 / 100_000, 292, 1.0, 1.466),
]


@pytest.mark.parametrize(("rate", "steps", "noise", "epsilon"), KNOWN)
def test_epsilon_agrees_with_known_values(rate: float, steps: int, noise: float, epsilon: float) -> None:
    assert epsilon_of(compose(NOTHING, rdp_of_step(rate, noise), steps), 1e-5) == pytest.approx(epsilon, abs=2e-3)


@settings(deadline=None)  # the first call of a pair of parameters takes long
@given(
    rate=st.sampled_from([0.001, 0.015, 0.1, 1.0]),
    noise=st.sampled_from([0.55, 0.8, 1.3, 4.0]),
    steps=st.integers(1, 5_000),
    delta=st.floats(1e-9, 1e-5),
)
def test_epsilon_equals_opacus(rate: float, noise: float, steps: int, delta: float) -> None:
    spent = compose(NOTHING, rdp_of_step(rate, noise), steps)
    expected, _ = get_privacy_spent(orders=list(ORDERS), rdp=list(spent), delta=delta)
    assert epsilon_of(spent, delta) == pytest.approx(max(0.0, float(expected)), rel=1e-9)


@given(limit=st.floats(0.5, 8.0), spent=st.integers(0, 100))
def test_most_steps_is_the_last_number_that_fits(limit: float, spent: int) -> None:
    step = rdp_of_step(0.015, 0.8)
    before = compose(NOTHING, step, spent)
    most = most_steps(before, step, limit=limit, delta=1e-5)
    assert epsilon_of(compose(before, step, most + 1), 1e-5) > limit
    assert most == 0 or epsilon_of(compose(before, step, most), 1e-5) <= limit


def test_an_infinite_spend_is_worth_infinite_epsilon() -> None:
    assert math.isinf(epsilon_of((math.inf,) * len(ORDERS), 1e-5))


def test_the_pure_modules_do_not_import_torch() -> None:
    modules = ", ".join(f"ctrainer.trainer.{name}" for name in ("accounting", "ledger", "dataset", "plan", "models"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
