import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrainer.trainer.evaluation import Measured, Prediction
from ctrainer.trainer.probes import ProbeOutcome
from ctrainer.trainer.release_gate import Thresholds, judge_release, publishable


def measured(base: float, adapted: float) -> Measured:
    return Measured(base=base, adapted=adapted)


GOOD = Prediction(
    texts=10,
    tokens=100,
    perplexity=measured(20.0, 15.0),
    token_accuracy=measured(0.4, 0.41),
    call_accuracy=measured(0.0, 0.0),
    call_token_accuracy=measured(0.5, 0.5),
)
PROBES = ProbeOutcome(
    compliance=measured(1.0, 1.0),
    resistance=measured(0.4, 0.4),
    refusals=measured(0.1, 0.1),
    distinct_1=measured(0.5, 0.5),
    distinct_2=measured(0.8, 0.8),
    prediction=dataclasses.replace(GOOD, call_accuracy=None, call_token_accuracy=None),
)


def test_an_adapter_that_keeps_everything_passes() -> None:
    verdict = judge_release(held_out=GOOD, probes=PROBES)
    assert verdict.passed
    assert verdict.reasons == ()
    assert len(verdict.checks) == 9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"perplexity": measured(20.0, 20.5)}, "perplexity"),
        ({"token_accuracy": measured(0.4, 0.39)}, "token-accuracy"),
        ({"call_token_accuracy": measured(0.5, 0.4)}, "tool-calls"),
        ({"perplexity": measured(20.0, math.nan)}, "perplexity"),
    ],
)
def test_each_loss_of_prediction_is_a_reason_of_its_own(change: dict[str, Any], reason: str) -> None:
    worse = dataclasses.replace(GOOD, **change)
    assert judge_release(held_out=worse, probes=PROBES).reasons == (f"held-out-{reason}",)
    public = dataclasses.replace(PROBES, prediction=worse)
    assert judge_release(held_out=GOOD, probes=public).reasons == (f"probe-{reason}",)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"compliance": measured(1.0, 0.949)}, "compliance"),
        ({"compliance": measured(0.9, 0.9)}, "compliance"),
        ({"resistance": measured(0.4, 0.2)}, "resistance"),
        ({"refusals": measured(0.1, 0.2)}, "answered"),
        ({"distinct_2": measured(0.8, 0.6)}, "diversity"),
    ],
)
def test_each_loss_of_conduct_is_a_reason_of_its_own(change: dict[str, Any], reason: str) -> None:
    verdict = judge_release(held_out=GOOD, probes=dataclasses.replace(PROBES, **change))
    assert not verdict.passed
    assert verdict.reasons == (reason,)


def test_a_base_model_below_the_bar_is_told_beside_the_adapter_and_lowers_nothing() -> None:
    verdict = judge_release(held_out=GOOD, probes=dataclasses.replace(PROBES, compliance=measured(0.5, 0.95)))
    check = next(check for check in verdict.checks if check.name == "compliance")
    assert (check.base, check.got, check.expected, check.passed) == (0.5, 0.95, 0.95, True)


def test_without_held_out_records_nothing_is_released() -> None:
    verdict = judge_release(held_out=None, probes=PROBES)
    assert not verdict.passed
    assert verdict.reasons == ("held-out-missing",)


def test_exactly_the_threshold_passes() -> None:
    at_bar = dataclasses.replace(PROBES, compliance=measured(1.0, 0.95))
    assert judge_release(held_out=GOOD, probes=at_bar, thresholds=Thresholds(compliance=0.95)).passed


@given(st.floats(0.01, 1.0), st.floats(1.0, 1e9))
def test_no_number_of_a_private_check_is_published(accuracy: float, perplexity: float) -> None:
    private = dataclasses.replace(GOOD, token_accuracy=measured(0.5, accuracy), perplexity=measured(20.0, perplexity))
    published = publishable(judge_release(held_out=private, probes=PROBES), probes_digest="sha256:00")
    checks = {check.name: check for check in published.checks}
    for name in ("held-out-token-accuracy", "held-out-perplexity", "held-out-tool-calls"):
        assert (checks[name].got, checks[name].expected, checks[name].base) == (None, None, None)
    assert checks["held-out-token-accuracy"].passed == (accuracy >= 0.5 * 0.98)
    assert checks["compliance"].got == 1.0


def test_what_is_no_number_fails_and_is_published_as_absent() -> None:
    broken = dataclasses.replace(PROBES, prediction=dataclasses.replace(GOOD, perplexity=measured(20.0, math.nan)))
    published = publishable(judge_release(held_out=GOOD, probes=broken), probes_digest="sha256:00")
    check = next(check for check in published.checks if check.name == "probe-perplexity")
    assert (check.passed, check.got) == (False, None)
