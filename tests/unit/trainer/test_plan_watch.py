"""Faults are planted in a real session of the tiny model; each must stop it before the next noise is drawn."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ctrainer.schemas.privacy import BudgetGranted, Mechanism, ReserveBudget
from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.errors import PlanViolatedError
from ctrainer.trainer.loop import TrainingEnd, TrainingOutcome, train
from ctrainer.trainer.models import load_model
from ctrainer.trainer.per_sample import ClippedSum, PerSampleGradients
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import EncodedExample

Examples = Callable[[int], list[EncodedExample]]
PLAN = PrivacyPlan(
    noise_multiplier=0.5,
    sampling_rate=0.1,
    expected_batch_size=3.0,
    clip_norm=1e-3,
    steps=45,
    delta=1e-5,
    epsilon_ceiling=8.0,
    epsilon_planned=7.0,
)


class Session:
    """A session of 30 records in blocks of four steps, with a ledger that grants what it is asked."""

    def __init__(self, model: object, rows: list[EncodedExample], place: Path) -> None:
        self.model = model
        self.rows = rows
        self.checkpoints = Checkpoints(folder=place)
        self.steps_begun = 0
        self.granted: Callable[[ReserveBudget], ReserveBudget] = lambda request: request

    def run(self) -> TrainingOutcome:
        return train(
            model=self.model,
            examples=self.rows,
            pad_token_id=0,
            plan=PLAN,
            learning_rate=1e-2,
            randomness=Randomness.unsafe_from_seed(9),
            reserve=self.reserve,
            on_block=lambda _: None,
            should_stop=self.count,
            checkpoints=self.checkpoints,
            block_steps=4,
        )

    def reserve(self, first_step: int, steps: int) -> BudgetGranted:
        request = ReserveBudget(
            reservation_id="r",
            scope="acme/default",
            tenant="acme",
            session_id="s",
            first_step=first_step,
            steps=steps,
            mechanism=Mechanism(noise_multiplier=0.5, sampling_rate=0.1, clip_norm=1e-3, expected_batch_size=3.0),
            epsilon_ceiling=8.0,
            delta=1e-5,
        )
        return BudgetGranted(sequence=1, request=self.granted(request), rdp=NOTHING, epsilon=1.0, alert=False)

    def count(self) -> bool:
        self.steps_begun += 1
        return False


@pytest.fixture
def session(tiny_folder: Path, tmp_path: Path, examples: Examples) -> Session:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = add_adapter(load_model(str(tiny_folder), cache_folder=tmp_path).model, LoraSettings(rank=2, alpha=4))
    return Session(model, examples(30), tmp_path / "checkpoints")


Plant = Callable[[pytest.MonkeyPatch], None]
NOISE, CLIP, APPLY, SAMPLE = (
    PrivateStep.noise,
    PerSampleGradients.clipped_sum,
    PrivateStep.set_gradient,
    Randomness.poisson_sample,
)


def no_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PrivateStep, "noise", lambda step: [draw * 0 for draw in NOISE(step)])


def half_the_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PrivateStep, "noise", lambda step: [draw / 2 for draw in NOISE(step)])


def one_draw_for_all_steps(patch: pytest.MonkeyPatch) -> None:
    draws: list[list[Tensor]] = []

    def first(step: PrivateStep) -> list[Tensor]:
        draws.append(NOISE(step))
        return [draw.clone() for draw in draws[0]]

    patch.setattr(PrivateStep, "noise", first)


def noise_that_is_not_added(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        PrivateStep, "set_gradient", lambda step, signal, noise: APPLY(step, signal, [draw * 0 for draw in noise])
    )


def the_realised_batch_size(patch: pytest.MonkeyPatch) -> None:
    def apply(step: PrivateStep, signal: list[Tensor], noise: list[Tensor]) -> None:
        step.plan = replace(PLAN, expected_batch_size=2.0)
        APPLY(step, signal, noise)

    patch.setattr(PrivateStep, "set_gradient", apply)


def a_larger_clip(patch: pytest.MonkeyPatch) -> None:
    def clipped(gradients: PerSampleGradients, clip_norm: float, *, samples: int) -> ClippedSum:
        return CLIP(gradients, 2 * clip_norm, samples=samples)

    patch.setattr(PerSampleGradients, "clipped_sum", clipped)


def no_clip_that_admits_it(patch: pytest.MonkeyPatch) -> None:
    def clipped(gradients: PerSampleGradients, _clip_norm: float, *, samples: int) -> ClippedSum:
        return replace(CLIP(gradients, 1e9, samples=samples), largest=0.0)

    patch.setattr(PerSampleGradients, "clipped_sum", clipped)


def twice_the_rate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Randomness, "poisson_sample", lambda drawn, records, rate: SAMPLE(drawn, records, 2 * rate))


def batches_of_one_size(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Randomness, "poisson_sample", lambda drawn, records, _: drawn.uniform(records).argsort()[:3].tolist())


@pytest.mark.parametrize(
    ("plant", "reason", "within_steps"),
    [
        (no_noise, "noise-out-of-plan", 1),
        (half_the_noise, "noise-out-of-plan", 1),
        (one_draw_for_all_steps, "noise-out-of-plan", 2),
        (noise_that_is_not_added, "gradient-out-of-plan", 1),
        (the_realised_batch_size, "gradient-out-of-plan", 1),
        (a_larger_clip, "clip-out-of-plan", 1),
        (no_clip_that_admits_it, "clip-out-of-plan", 1),
        (twice_the_rate, "sampler-out-of-plan", 40),
        (batches_of_one_size, "sampler-out-of-plan", 40),
    ],
)
def test_a_planted_fault_stops_the_session_and_nothing_of_it_is_saved(
    session: Session, monkeypatch: pytest.MonkeyPatch, plant: Plant, reason: str, within_steps: int
) -> None:
    plant(monkeypatch)
    with pytest.raises(PlanViolatedError) as caught:
        session.run()
    assert caught.value.reason == reason
    assert session.steps_begun <= within_steps
    assert max(session.checkpoints.steps(), default=0) < session.steps_begun


def another_block(request: ReserveBudget) -> ReserveBudget:
    return request.model_copy(update={"first_step": request.first_step + 4})


def a_shorter_block(request: ReserveBudget) -> ReserveBudget:
    return request.model_copy(update={"steps": 2})


@pytest.mark.parametrize(("granted", "steps"), [(another_block, 0), (a_shorter_block, 2)])
def test_a_step_that_no_grant_covers_is_never_begun(
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    granted: Callable[[ReserveBudget], ReserveBudget],
    steps: int,
) -> None:
    drawn: list[None] = []

    def counted(step: PrivateStep) -> list[Tensor]:
        drawn.append(None)
        return NOISE(step)

    monkeypatch.setattr(PrivateStep, "noise", counted)
    session.granted = granted
    with pytest.raises(PlanViolatedError) as caught:
        session.run()
    assert caught.value.reason == "step-without-grant"
    assert len(drawn) == steps


def test_a_grant_for_another_mechanism_is_never_used(session: Session) -> None:
    def cheaper(request: ReserveBudget) -> ReserveBudget:
        return request.model_copy(update={"mechanism": request.mechanism.model_copy(update={"noise_multiplier": 2.0})})

    session.granted = cheaper
    with pytest.raises(PlanViolatedError, match="another mechanism"):
        session.run()


def test_a_sound_session_raises_no_alarm(session: Session) -> None:
    assert session.run() == TrainingOutcome(end=TrainingEnd.COMPLETED, step=45)
