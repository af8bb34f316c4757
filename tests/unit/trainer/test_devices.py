"""What training promises, on every device of this machine: always on the CPU, and on a GPU where there is one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.evaluation import Text, measure_prediction
from ctrainer.trainer.ledger import Granted
from ctrainer.trainer.loop import TrainingEnd, train
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.micro_batch import MicroBatch
from ctrainer.trainer.models import LanguageModel, load_model
from ctrainer.trainer.noise_thread import noise_thread
from ctrainer.trainer.per_sample import per_sample_gradients
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import EncodedExample, collate
from tests import assigned

Examples = Callable[[int], list[EncodedExample]]
PLAN = replace(assigned.PLAN, noise_multiplier=0.5, sampling_rate=0.2, clip_norm=0.02, steps=8)


@pytest.fixture(params=["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def on(device: torch.device, language_model: LanguageModel, *, base_type: torch.dtype = torch.float32) -> Any:
    """The model with an adapter of float32, as sessions have it; outer weights are not zero."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = add_adapter(language_model.model.to(device, base_type), LoraSettings(rank=2, alpha=4))
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.data = torch.randn(parameter.shape).mul_(0.1).to(device)
    return model


class Stop:
    """Asks to stop after a block."""

    def __init__(self, step: int) -> None:
        self.step, self.done = step, 0

    def note(self, done: int) -> None:
        self.done = done

    def is_due(self) -> bool:
        return self.done >= self.step


def flat_gradients(model: Any) -> Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def step_of(model: Any, gradients: Any, computation: Computation) -> PrivateStep:
    return PrivateStep(
        model=model,
        gradients=gradients,
        plan=PLAN,
        randomness=Randomness.unsafe_from_seed(8),
        computation=computation,
        pad_token_id=0,
    )


def test_the_sum_of_unclipped_gradients_is_that_of_single_backward_passes(
    device: torch.device, tiny: LanguageModel, examples: Examples
) -> None:
    model, rows = on(device, tiny), examples(7)
    for row in rows:
        torch.autograd.backward(sample_losses(model, collate([row], pad_token_id=0).to(device)).sum())
    expected = flat_gradients(model)
    model.zero_grad()
    with per_sample_gradients(model) as gradients:
        step = step_of(model, gradients, Computation())
        step.plan = replace(PLAN, clip_norm=1e6, expected_batch_size=1.0)
        step.set_gradient(step.signal(rows).totals, [torch.zeros_like(zero).double() for zero in gradients.zeros()])
        by_name = dict(zip([factor.name for factor in gradients.factors], step.applied_gradient(), strict=True))
    found = torch.cat([by_name[name].flatten() for name, weight in model.named_parameters() if weight.requires_grad])
    assert float((found - expected).norm()) <= 1e-5 * float(expected.norm())


@pytest.mark.parametrize("bfloat16", [False, True])
def test_leaving_out_a_record_moves_the_sum_by_at_most_the_clip_norm(
    device: torch.device, tiny: LanguageModel, examples: Examples, *, bfloat16: bool
) -> None:
    computation = Computation(micro_batch=MicroBatch(32), pass_tokens=10_000, bfloat16=bfloat16)
    model, rows = on(device, tiny, base_type=computation.base_type), examples(6)
    with per_sample_gradients(model) as gradients:
        step = step_of(model, gradients, computation)
        whole = torch.cat(step.signal(rows).totals)
        for left_out in range(len(rows)):
            rest = torch.cat(step.signal(rows[:left_out] + rows[left_out + 1 :]).totals)
            assert float((whole - rest).norm()) <= PLAN.clip_norm * (1 + 1e-5)


def test_a_device_draws_the_noise_that_the_processor_would_draw(device: torch.device) -> None:
    # More than one portion of a GPU, and an end that fills none.
    count = 2_200_001
    here, there = Randomness.unsafe_from_seed(3), Randomness.unsafe_from_seed(3)
    drawn = there.normal(count, device)
    assert drawn.device.type == device.type
    assert torch.allclose(drawn.cpu(), here.normal(count), rtol=1e-12, atol=1e-12)
    assert here.position == there.position
    assert torch.equal(here.normal(5), there.normal(5))


def test_noise_of_the_thread_is_whole_when_it_is_taken(device: torch.device) -> None:
    here, there = Randomness.unsafe_from_seed(3), Randomness.unsafe_from_seed(3)
    with noise_thread(device) as thread:
        for _ in range(4):
            drawn = thread.begin(lambda: [there.normal(300_000, device)]).result()
            assert torch.allclose(drawn[0].cpu(), here.normal(300_000), rtol=1e-12, atol=1e-12)


def test_a_session_trains_resumes_and_predicts(
    device: torch.device, tiny_folder: Path, tmp_path: Path, examples: Examples
) -> None:
    def session(name: str, *, stop_after: int = PLAN.steps) -> tuple[Any, Checkpoints]:
        computation = Computation.on(device)
        loaded = load_model(str(tiny_folder), cache_folder=tmp_path)
        model = on(device, loaded, base_type=computation.base_type)
        checkpoints = Checkpoints(folder=tmp_path / name)
        for limit in (stop_after, PLAN.steps):
            stop = Stop(limit)
            outcome = train(
                model=model,
                examples=examples(30),
                pad_token_id=0,
                plan=PLAN,
                learning_rate=1e-2,
                randomness=Randomness.unsafe_from_seed(9),
                reserve=lambda _first, _steps: Granted(epsilon=1.0, rdp=NOTHING, alert=False),
                on_block=stop.note,
                should_stop=stop.is_due,
                checkpoints=checkpoints,
                start=checkpoints.newest().checkpoint,
                block_steps=4,
            )
        assert (outcome.end, outcome.step) == (TrainingEnd.COMPLETED, PLAN.steps)
        return model, checkpoints

    def adapter(model: Any) -> Tensor:
        return torch.cat([weight.detach().flatten() for weight in model.parameters() if weight.requires_grad])

    whole, _ = session("whole")
    resumed, checkpoints = session("resumed", stop_after=4)
    assert checkpoints.steps()[-1] == PLAN.steps
    # Attention's backward pass on a GPU adds in no fixed order; a CPU is held to every bit in test_loop.
    assert float((adapter(whole) - adapter(resumed)).norm()) <= 1e-3 * float(adapter(whole).norm())
    prediction = measure_prediction(model=whole, texts=[Text(example=row) for row in examples(5)], pad_token_id=0)
    assert prediction.perplexity.base != prediction.perplexity.adapted
