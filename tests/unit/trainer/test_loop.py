import stat
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from ctrainer.schemas.privacy import PrivacyMode, PrivacyUnit
from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.batches import Unit, slot_of
from ctrainer.trainer.checkpoint import Checkpoint, Checkpoints
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.errors import CheckpointNotSavedError, NotTrainingError
from ctrainer.trainer.ledger import Granted, Refused
from ctrainer.trainer.loop import TrainingEnd, TrainingOutcome, train
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.micro_batch import MicroBatch
from ctrainer.trainer.models import load_model
from ctrainer.trainer.plan import NonPrivatePlan, PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import EncodedExample, collate

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
        self.steps: list[int] = []
        self.on_block: Callable[[int], None] = self.blocks.append
        self.randomness = Randomness.unsafe_from_seed(9)
        self.computation: Computation | None = None
        self.patch = pytest.MonkeyPatch()

    def run(
        self,
        plan: PrivacyPlan | NonPrivatePlan,
        *,
        stop_when: Callable[[], bool] = lambda: False,
        start: Checkpoint | None = None,
        rate: float = 1e-2,
        units: list[Unit] | None = None,
        granted_before: int = 0,
    ) -> TrainingOutcome:
        return train(
            model=self.model,
            examples=self.rows,
            pad_token_id=0,
            plan=plan,
            learning_rate=rate,
            randomness=self.randomness,
            reserve=self.ledger.reserve,
            on_block=self.on_block,
            should_stop=stop_when,
            checkpoints=self.checkpoints,
            start=start,
            block_steps=4,
            computation=self.computation,
            units=units,
            granted_before=granted_before,
            on_step=self.steps.append,
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
    assert session.steps == list(range(1, 11))
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


class Killed(BaseException):
    """The process ends here: nothing of it runs on."""


class Kill:
    """Ends a session at one of its moments: counts calls, and raises at the chosen one."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, *_: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def kill_between_grant_and_step(session: Session, at: int) -> None:
    kill, reserve = Kill(at), session.ledger.reserve

    def granted_and_killed(first_step: int, steps: int) -> Granted | Refused:
        answer = reserve(first_step, steps)
        kill()
        return answer

    session.ledger.reserve = granted_and_killed  # type: ignore[method-assign]


def kill_in_a_forward_pass(session: Session, at: int) -> None:
    session.model.base_model.model.model.layers[1].register_forward_hook(Kill(3 * at))


def kill_between_noise_and_update(session: Session, at: int) -> None:
    kill, step = Kill(3 * at), torch.optim.AdamW.step

    def killed(optimizer: torch.optim.AdamW, closure: None = None) -> object:
        if optimizer.param_groups[0]["params"][0] is next(w for w in session.model.parameters() if w.requires_grad):
            kill()
        return step(optimizer, closure)

    session.patch.setattr(torch.optim.AdamW, "step", killed)


def kill_before_the_checkpoint_is_in_place(session: Session, at: int) -> None:
    kill, rename = Kill(at), Path.rename

    def killed(path: Path, target: Path) -> Path:
        kill()
        return rename(path, target)

    session.patch.setattr(Path, "rename", killed)


def kill_after_the_checkpoint(session: Session, at: int) -> None:
    kill = Kill(at)
    session.on_block = kill


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(
    "kill",
    [
        kill_between_grant_and_step,
        kill_in_a_forward_pass,
        kill_between_noise_and_update,
        kill_before_the_checkpoint_is_in_place,
        kill_after_the_checkpoint,
    ],
)
def test_a_killed_run_that_is_resumed_equals_one_that_was_not(
    tiny_folder: Path,
    tmp_path: Path,
    examples: Examples,
    *,
    monkeypatch: pytest.MonkeyPatch,
    kill: Callable[[Session, int], None],
    at: int,
) -> None:
    whole = Session(tiny_folder, tmp_path / "whole", examples(30))
    whole.run(plan_of())
    killed = Session(tiny_folder, tmp_path / "killed", examples(30))
    with monkeypatch.context() as killed.patch:
        kill(killed, at)
        with pytest.raises(Killed):
            killed.run(plan_of())
    resumed = Session(tiny_folder, tmp_path / "killed", examples(30))
    resumed.run(plan_of(), start=resumed.checkpoints.newest().checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), resumed.weights(), strict=True))
    granted = killed.ledger.asked + resumed.ledger.asked
    assert {step for first, steps in granted for step in range(first, first + steps)} == set(range(12))


class FullDisk:
    """Checkpoints that find the disk full from their second block on."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.asked: list[int] = []

    def ensure_room(self, size: int) -> None:
        self.asked.append(size)
        if len(self.asked) > 1:
            raise CheckpointNotSavedError("the next checkpoint: made up")

    def save(self, step: int, files: Mapping[str, bytes]) -> Path:
        return self.checkpoints.save(step, files)


def test_a_full_disk_is_found_out_before_the_budget_is_asked(session: Session) -> None:
    checkpoints = session.checkpoints
    session.checkpoints = FullDisk(checkpoints)  # type: ignore[assignment]
    with pytest.raises(CheckpointNotSavedError):
        session.run(plan_of())
    assert session.ledger.asked == [(0, 4)]
    assert checkpoints.steps() == (4,)


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
    assert b'"unsafe_position":null' in files["position.json"]


@pytest.mark.parametrize(
    "computation",
    [Computation(gradient_checkpointing=True), Computation(bfloat16=True), Computation(micro_batch=MicroBatch(1))],
)
def test_every_choice_of_computation_trains(session: Session, computation: Computation) -> None:
    session.computation = computation
    before = session.weights()
    assert session.run(plan_of(steps=4, rate=0.2)) == TrainingOutcome(end=TrainingEnd.COMPLETED, step=4)
    assert all(not torch.equal(a, b) for a, b in zip(before, session.weights(), strict=True))
    assert all(weight.dtype is torch.float32 for weight in session.weights())


def test_the_model_is_plain_again_after_training(session: Session) -> None:
    session.run(plan_of(steps=1))
    assert not any("forward" in vars(module) for module in session.model.modules())


def test_one_poisoned_record_does_not_end_a_session(session: Session) -> None:
    poison = EncodedExample(token_ids=(250, 250, 250), labels=(250, 250, 250))
    embedding = session.model.get_input_embeddings()
    embedding.weight.data[250] = float("inf")
    session.model.base_model.model.lm_head.weight = torch.nn.Parameter(
        embedding.weight.detach().nan_to_num(posinf=0.0), requires_grad=False
    )
    session.rows = [poison, *session.rows]
    outcome = session.run(plan_of(steps=4, rate=1.0))
    assert outcome == TrainingOutcome(end=TrainingEnd.COMPLETED, step=4, not_finite=4)
    assert all(bool(torch.isfinite(weight).all()) for weight in session.weights())


def units_for(rows: list[EncodedExample]) -> list[Unit]:
    return [Unit(identity=f"record {index}", examples=(index,)) for index in range(len(rows))]


def pass_plan(mode: PrivacyMode = PrivacyMode.SINGLE_PASS, **changes: Any) -> PrivacyPlan:
    bands = 3 if mode is PrivacyMode.SINGLE_PASS_CORRELATED else 1
    return replace(plan_of(steps=10, rate=0.1), mode=mode, bands=bands, **changes)


PASSES = [PrivacyMode.SINGLE_PASS, PrivacyMode.SINGLE_PASS_CORRELATED]


def seen_by(session: Session) -> list[tuple[int, ...]]:
    """Watch which examples, by their tokens, a session computes gradients of."""
    seen: list[tuple[int, ...]] = []

    def watch(_: object, __: tuple[object, ...], kwargs: dict[str, Tensor]) -> None:
        for ids, mask in zip(kwargs["input_ids"].tolist(), kwargs["attention_mask"].tolist(), strict=True):
            seen.append(tuple(ids[: sum(mask)]))

    session.model.register_forward_pre_hook(watch, with_kwargs=True)
    return seen


@pytest.mark.parametrize("mode", PASSES)
def test_a_single_pass_trains_on_every_record_once(session: Session, mode: PrivacyMode) -> None:
    seen = seen_by(session)
    outcome = session.run(pass_plan(mode), units=units_for(session.rows))
    assert (outcome.end, outcome.step) == (TrainingEnd.COMPLETED, 10)
    again = Counter(seen) - Counter(row.token_ids for row in session.rows)
    assert set(seen) == {row.token_ids for row in session.rows}
    # The watch computes one clipped gradient alone, to look at it.
    assert again.total() == 1


@pytest.mark.parametrize("mode", PASSES)
@pytest.mark.parametrize("steps_before_the_stop", [1, 4, 7])
def test_a_seeded_pass_that_is_resumed_equals_one_that_was_not(
    tiny_folder: Path, tmp_path: Path, examples: Examples, mode: PrivacyMode, steps_before_the_stop: int
) -> None:
    whole = Session(tiny_folder, tmp_path / "whole", examples(30))
    whole.run(pass_plan(mode), units=units_for(whole.rows))
    stopped = Session(tiny_folder, tmp_path / "stopped", examples(30))
    asked = iter(range(100))
    stopped.run(pass_plan(mode), units=units_for(stopped.rows), stop_when=lambda: next(asked) >= steps_before_the_stop)
    resumed = Session(tiny_folder, tmp_path / "stopped", examples(30))
    resumed.run(pass_plan(mode), units=units_for(resumed.rows), start=resumed.checkpoints.newest().checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), resumed.weights(), strict=True))


@pytest.mark.parametrize("mode", PASSES)
def test_a_pass_goes_on_beyond_what_a_killed_process_may_have_released(
    tiny_folder: Path, tmp_path: Path, examples: Examples, mode: PrivacyMode
) -> None:
    killed = Session(tiny_folder, tmp_path, examples(30))
    before = seen_by(killed)
    kill_in_a_forward_pass(killed, 2)
    with pytest.raises(Killed):
        killed.run(pass_plan(mode), units=units_for(killed.rows))
    granted = max(first + steps for first, steps in killed.ledger.asked)
    successor = Session(tiny_folder, tmp_path, examples(30))
    after = seen_by(successor)
    start = successor.checkpoints.newest().checkpoint
    outcome = successor.run(pass_plan(mode), units=units_for(successor.rows), start=start, granted_before=granted)
    assert (outcome.end, outcome.step) == (TrainingEnd.COMPLETED, 10)
    assert successor.ledger.asked[0][0] == granted
    assert before
    assert after
    released = {row.token_ids for row in successor.rows if slot_of_row(successor, row) < start_of(start)}
    assert set(before).isdisjoint(after)
    assert released <= set(before)


def start_of(checkpoint: Checkpoint | None) -> int:
    return checkpoint.step if checkpoint else 0


def slot_of_row(session: Session, row: EncodedExample) -> int:
    return slot_of(f"record {session.rows.index(row)}", rate=0.1)


def test_a_pass_that_was_granted_whole_and_left_nothing_gives_no_adapter(session: Session) -> None:
    with pytest.raises(NotTrainingError, match="no checkpoint"):
        session.run(pass_plan(), units=units_for(session.rows), granted_before=10)


def test_granted_steps_of_a_poisson_session_are_run_again(session: Session) -> None:
    session.run(plan_of(steps=8), granted_before=4)
    assert session.ledger.asked == [(0, 4), (4, 4)]


def test_keys_of_correlated_noise_are_kept_while_the_pass_goes_on_and_not_beyond(session: Session) -> None:
    session.randomness = Randomness.secure()
    key, kept = session.randomness.key.hex(), []
    session.on_block = lambda step: kept.append(key in position_of(session, step))
    session.run(pass_plan(PrivacyMode.SINGLE_PASS_CORRELATED), units=units_for(session.rows))
    assert kept == [True, True, False]
    assert session.checkpoints.steps() == (10,)
    place = next(session.checkpoints.folder.iterdir())
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_no_key_of_independent_noise_is_ever_kept(session: Session) -> None:
    session.randomness = Randomness.secure()
    key, kept = session.randomness.key.hex(), []
    session.on_block = lambda step: kept.append(key in position_of(session, step))
    session.run(pass_plan(PrivacyMode.SINGLE_PASS), units=units_for(session.rows))
    assert kept == [False, False, False]


def position_of(session: Session, step: int) -> str:
    return session.checkpoints.read(step).files["position.json"].decode()


@pytest.mark.parametrize("changes", [{"mode": PrivacyMode.SINGLE_PASS}, {"whole_users": True}])
def test_what_goes_by_identities_is_refused_without_them(session: Session, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="identities"):
        session.run(replace(plan_of(), **changes))


def test_training_without_privacy_clips_nothing_and_adds_no_noise(session: Session) -> None:
    plan = NonPrivatePlan(sampling_rate=0.5, expected_batch_size=15.0, steps=6)
    position = session.randomness.position
    outcome = session.run(plan)
    assert outcome.end is TrainingEnd.COMPLETED
    # Poisson draws only: 30 numbers of 8 bytes for each step.
    assert session.randomness.position - position == 6 * 15


def test_training_without_privacy_learns_what_it_is_shown(session: Session) -> None:
    before = loss_of(session)
    session.run(NonPrivatePlan(sampling_rate=1.0, expected_batch_size=30.0, steps=12), rate=0.1)
    assert loss_of(session) < before - 0.2


def loss_of(session: Session) -> float:
    with torch.no_grad():
        return float(sample_losses(session.model, collate(session.rows, pad_token_id=0)).mean())


def test_a_session_draws_whole_users_and_saves_what_it_learns(session: Session) -> None:
    users = [Unit(identity=f"user {user}", examples=tuple(range(user, 30, 6))) for user in range(6)]
    plan = replace(plan_of(steps=4, rate=0.5, batch=3.0), unit=PrivacyUnit.USER, whole_users=True)
    seen = seen_by(session)
    assert session.run(plan, units=users).end is TrainingEnd.COMPLETED
    drawn = Counter(seen)
    # Every batch has all five records of a user or none; the watch looks at one user alone.
    of_user = [{drawn[session.rows[index].token_ids] for index in user.examples} for user in users]
    assert all(len(counts) == 1 for counts in of_user)
    assert drawn


def test_what_was_trained_is_what_plain_peft_loads_generates_with_and_merges(
    session: Session, tiny_folder: Path, tmp_path: Path
) -> None:
    assert session.run(plan_of(steps=4, rate=0.2)).end is TrainingEnd.COMPLETED
    session.model.save_pretrained(tmp_path / "adapter")
    base = load_model(str(tiny_folder), cache_folder=tmp_path).model
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    expected = session.model(tokens).logits
    assert not torch.equal(load_model(str(tiny_folder), cache_folder=tmp_path).model(tokens).logits, expected)
    assert torch.equal(loaded(tokens).logits, expected)
    said = session.model.generate(input_ids=tokens, max_new_tokens=8, do_sample=False)
    assert torch.equal(loaded.generate(input_ids=tokens, max_new_tokens=8, do_sample=False), said)
    merged = loaded.merge_and_unload()
    assert torch.equal(merged(tokens).logits, session.model.merge_and_unload()(tokens).logits)
    assert torch.allclose(merged(tokens).logits, expected, atol=1e-5)
