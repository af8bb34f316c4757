from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.checkpoint import Checkpoint, Checkpoints
from ctrainer.trainer.computation import even_parts
from ctrainer.trainer.errors import NotTrainingError
from ctrainer.trainer.ledger import Granted, Refused
from ctrainer.trainer.loop import TrainingEnd, TrainingOutcome, train
from ctrainer.trainer.models import load_model
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import EncodedExample

Examples = Callable[[int], list[EncodedExample]]


def plan_of(*, steps: int = 12, rate: float = 0.1, noise: float = 0.5, batch: float = 3.0) -> PrivacyPlan:
    return PrivacyPlan(
        noise_multiplier=noise,
        sampling_rate=rate,
        expected_batch_size=batch,
        clip_norm=1.0,
        steps=steps,
        delta=1e-5,
        epsilon_ceiling=8.0,
        epsilon_planned=7.0,
    )


class Ledger:
    """Grants every block until `limit` steps are reserved, and remembers what it was asked."""

    def __init__(self, limit: int = 1_000_000) -> None:
        self.limit = limit
        self.asked: list[tuple[int, int]] = []

    def reserve(self, first_step: int, steps: int) -> Granted | Refused:
        self.asked.append((first_step, steps))
        if first_step + steps > self.limit:
            return Refused(reason="budget-exhausted", message="over 95 %", epsilon=7.0, acceptable_steps=0)
        return Granted(epsilon=1.0, rdp=NOTHING, alert=False)


class Session:
    """One model with a fresh adapter, always the same, and the folder of its checkpoints."""

    def __init__(self, tiny_folder: Path, place: Path, rows: list[EncodedExample]) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(4)
            loaded = load_model(str(tiny_folder), cache_folder=place).model
            self.model = add_adapter(loaded, LoraSettings(rank=2, alpha=4))
        self.rows = rows
        self.checkpoints = Checkpoints(folder=place / "checkpoints")
        self.ledger = Ledger()
        self.blocks: list[int] = []
        self.randomness = Randomness.unsafe_from_seed(9)

    def run(
        self,
        plan: PrivacyPlan,
        *,
        stop_when: Callable[[], bool] = lambda: False,
        start: Checkpoint | None = None,
        rate: float = 1e-2,
    ) -> TrainingOutcome:
        return train(
            model=self.model,
            examples=self.rows,
            pad_token_id=0,
            plan=plan,
            learning_rate=rate,
            randomness=self.randomness,
            reserve=self.ledger.reserve,
            on_block=self.blocks.append,
            should_stop=stop_when,
            checkpoints=self.checkpoints,
            start=start,
            block_steps=4,
        )

    def weights(self) -> list[Tensor]:
        return [weight.detach().clone() for weight in self.model.parameters() if weight.requires_grad]


@pytest.fixture
def session(tiny_folder: Path, tmp_path: Path, examples: Examples) -> Session:
    return Session(tiny_folder, tmp_path, examples(30))


def test_every_block_is_reserved_before_it_runs_and_saved_before_it_is_told(session: Session) -> None:
    outcome = session.run(plan_of(steps=10))
    assert outcome == TrainingOutcome(end=TrainingEnd.COMPLETED, step=10)
    assert session.ledger.asked == [(0, 4), (4, 4), (8, 2)]
    assert session.blocks == [4, 8, 10]
    assert session.checkpoints.steps() == (8, 10)


def test_a_refusal_halts_before_any_noise_of_the_block(session: Session) -> None:
    session.ledger.limit = 4
    outcome = session.run(plan_of())
    assert (outcome.end, outcome.step, outcome.reason) == (TrainingEnd.HALTED, 4, "budget-exhausted")
    after_four = Session.weights(session)
    position = session.randomness.position
    session.ledger.limit = 0
    assert session.run(plan_of(), start=session.checkpoints.read(4)).step == 4
    assert session.randomness.position == position
    assert all(torch.equal(a, b) for a, b in zip(after_four, session.weights(), strict=True))


@pytest.mark.parametrize("steps_before_the_stop", [1, 3, 4, 6])
def test_a_seeded_run_that_is_resumed_equals_one_that_was_not(
    tiny_folder: Path, tmp_path: Path, examples: Examples, steps_before_the_stop: int
) -> None:
    whole = Session(tiny_folder, tmp_path / "whole", examples(30))
    whole.run(plan_of())
    stopped = Session(tiny_folder, tmp_path / "stopped", examples(30))
    asked = iter(range(100))
    outcome = stopped.run(plan_of(), stop_when=lambda: next(asked) >= steps_before_the_stop)
    assert (outcome.end, outcome.step) == (TrainingEnd.STOPPED, steps_before_the_stop)
    resumed = Session(tiny_folder, tmp_path / "stopped", examples(30))
    assert resumed.run(plan_of(), start=resumed.checkpoints.newest().checkpoint).end is TrainingEnd.COMPLETED
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), resumed.weights(), strict=True))


def test_empty_batches_still_get_noise_and_still_count(session: Session) -> None:
    before = session.weights()
    outcome = session.run(plan_of(steps=4, rate=1e-12))
    assert outcome == TrainingOutcome(end=TrainingEnd.COMPLETED, step=4)
    assert session.ledger.asked == [(0, 4)]
    assert all(not torch.equal(a, b) for a, b in zip(before, session.weights(), strict=True))


def test_gradients_are_divided_by_the_expected_batch_size(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original = torch.optim.AdamW.step

    def recording(optimizer: torch.optim.AdamW, closure: None = None) -> object:
        squares = [float(weight.grad.square().sum()) for weight in optimizer.param_groups[0]["params"]]
        norms.append(sum(squares) ** 0.5)
        return original(optimizer, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    session.run(plan_of(steps=1, rate=1.0, noise=1e-9, batch=3.0))
    # All 30 records are drawn; each is clipped to 1; divided by 30 the norm could not pass 1.
    assert 1.0 < norms[0] <= 30 / 3.0 * (1 + 1e-5)


def test_training_without_noise_would_be_seen(session: Session) -> None:
    with pytest.raises(NotTrainingError, match="noise"):
        session.run(plan_of(steps=1, rate=1.0, noise=0.0))


def test_training_that_moves_nothing_would_be_seen(session: Session) -> None:
    with pytest.raises(NotTrainingError, match="did not move"):
        session.run(plan_of(steps=1, rate=1.0), rate=0.0)


def test_training_without_signal_would_be_seen(session: Session) -> None:
    session.model.get_input_embeddings().weight.data.fill_(float("nan"))
    with pytest.raises(NotTrainingError, match="no finite gradient"):
        session.run(plan_of(steps=1, rate=1.0))


def test_the_key_of_a_secure_stream_is_never_saved(session: Session) -> None:
    session.randomness = Randomness.secure()
    session.run(plan_of(steps=4))
    files = session.checkpoints.read(4).files
    assert all(session.randomness.key not in content for content in files.values())
    assert b'"unsafe_position": null' in files["position.json"]


@given(count=st.integers(0, 50), most=st.integers(1, 9))
def test_a_batch_is_split_into_the_fewesteven_parts(count: int, most: int) -> None:
    parts = even_parts(range(count), most)
    sizes = [len(part) for part in parts]
    assert [member for part in parts for member in part] == list(range(count))
    assert len(parts) == -(-count // most)
    assert all(1 <= size <= most for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
