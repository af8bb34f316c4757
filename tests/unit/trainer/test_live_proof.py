import pytest
import torch
from torch import Tensor, nn

from ctrainer.trainer.errors import NotTrainingError
from ctrainer.trainer.gradient_block import Factor
from ctrainer.trainer.live_proof import LiveProof

SIGNAL, SILENCE = [torch.ones(4)], [torch.zeros(4)]
NOISE = [torch.ones(4)]


@pytest.fixture
def factors() -> list[Factor]:
    inner = Factor(name="a", weight=nn.Parameter(torch.zeros(2, 1)), outer=False)
    return [inner, Factor(name="b", weight=nn.Parameter(torch.zeros(1, 2)), outer=True)]


def step(proof: LiveProof, signal: list[Tensor], *, noise: list[Tensor] = NOISE, moves: float = 1.0) -> None:
    before = proof.before()
    proof.factors[1].weight.data.add_(moves)
    proof.check(before, signal=signal, noise=noise)


def test_one_step_with_signal_noise_and_movement_is_the_proof(factors: list[Factor]) -> None:
    proof = LiveProof(factors=factors)
    step(proof, SIGNAL)
    assert proof.proven
    assert proof.before() == []
    proof.at_end()


def test_one_silent_batch_is_forgiven(factors: list[Factor]) -> None:
    proof = LiveProof(factors=factors)
    step(proof, SILENCE)
    assert not proof.proven
    step(proof, SIGNAL)
    assert proof.proven


def test_three_silent_batches_are_not(factors: list[Factor]) -> None:
    proof = LiveProof(factors=factors)
    step(proof, SILENCE)
    step(proof, SILENCE)
    with pytest.raises(NotTrainingError, match="no finite gradient"):
        step(proof, SILENCE)


def test_a_session_without_any_signal_has_no_proof_at_its_end(factors: list[Factor]) -> None:
    proof = LiveProof(factors=factors)
    proof.at_end()
    step(proof, SILENCE)
    with pytest.raises(NotTrainingError, match="no finite gradient"):
        proof.at_end()


def test_weights_that_stand_still_are_seen(factors: list[Factor]) -> None:
    with pytest.raises(NotTrainingError, match="1 adapter weights did not move"):
        step(LiveProof(factors=factors), SIGNAL, moves=0.0)


def test_a_weight_without_noise_is_seen(factors: list[Factor]) -> None:
    with pytest.raises(NotTrainingError, match="no noise"):
        step(LiveProof(factors=factors), SIGNAL, noise=[torch.ones(2), torch.zeros(2)])
