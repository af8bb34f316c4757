from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ctrainer.trainer import private_step
from ctrainer.trainer.accounting import NOTHING, compose, rdp_of_step
from ctrainer.trainer.canary_audit import guess_probability, undercounted
from ctrainer.trainer.canary_run import audit_step
from ctrainer.trainer.canary_trial import made_up_examples, trial_step
from ctrainer.trainer.ledger import LedgerState, reserve
from ctrainer.trainer.per_sample import ClippedSum, PerSampleGradients
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.tokenization import IGNORED, TokenBatch


@pytest.fixture
def step(tmp_path: Path) -> Iterator[PrivateStep]:
    with trial_step(tmp_path, noise_multiplier=4.0, unsafe_seed=11) as made:
        yield made


def test_the_correct_step_is_not_accused_whatever_the_noise(step: PrivateStep) -> None:
    for _ in range(10):
        audit = audit_step(step, made_up_examples())
        assert audit.passed
        assert audit.sensitivity == pytest.approx(1.0, abs=1e-3)


def test_missing_noise_is_caught_without_any_assumption(step: PrivateStep, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled_noise(monkeypatch, 0.0)
    audit = audit_step(step, made_up_examples())
    assert audit.one_run > audit.claimed
    assert not audit.passed


def test_half_the_noise_is_caught(step: PrivateStep, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled_noise(monkeypatch, 0.5)
    audit = audit_step(step, made_up_examples())
    assert audit.gaussian > audit.claimed


def test_a_missing_clip_is_caught(step: PrivateStep, monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(self: PerSampleGradients, clip_norm: float, *, samples: int) -> ClippedSum:  # noqa: ARG001
        return ClippedSum(totals=[rows.sum(0) for rows in self._taken(samples)], not_finite=0)

    monkeypatch.setattr(PerSampleGradients, "clipped_sum", unclipped)
    audit = audit_step(step, made_up_examples())
    assert audit.gaussian > audit.claimed
    assert audit.sensitivity > 1.1


def test_a_mean_over_all_tokens_of_the_batch_is_caught(step: PrivateStep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_step, "sample_losses", token_mean)
    audit = audit_step(step, made_up_examples())
    assert audit.sensitivity > 1.01
    assert not audit.passed


def test_a_refund_after_a_crash_is_caught_in_the_arithmetic_of_the_ledger() -> None:
    cost, state = rdp_of_step(0.02, 0.8), LedgerState()
    for name in ("block", "the same block after a crash"):
        state, _ = reserve(
            state,
            reservation_id=name,
            fingerprint=name,
            step_rdp=cost,
            steps=8,
            epsilon_ceiling=8.0,
            delta=1e-5,
        )
    charges = [(cost, grant.steps) for grant in state.grants.values()]
    assert not undercounted(charges, state.rdp)
    assert undercounted(charges, compose(NOTHING, cost, 8))


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "epsilon"),
    [(500, 100, 75, 0.70), (1_000, 100, 90, 1.63), (1_000, 1_000, 900, 2.02), (1_000, 1_000, 1_000, 5.76)],
)
def test_the_bound_agrees_with_published_certificates(
    canaries: int, guesses: int, correct: int, epsilon: float
) -> None:
    assert guess_probability(correct, guesses, canaries, epsilon - 0.03, 1e-5) < 0.05
    assert guess_probability(correct, guesses, canaries, epsilon + 0.03, 1e-5) > 0.05


def scaled_noise(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    whole = PrivateStep.noise
    monkeypatch.setattr(PrivateStep, "noise", lambda self: [draw * factor for draw in whole(self)])


def token_mean(model: Any, batch: TokenBatch) -> Tensor:
    logits = model(input_ids=batch.token_ids, attention_mask=batch.attention_mask, use_cache=False).logits[:, :-1]
    targets = batch.labels[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view_as(targets).sum(1) / torch.as_tensor((targets != IGNORED).sum())
