import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from ctrainer.trainer.checkpoint import Checkpoint
from ctrainer.trainer.errors import CorruptCheckpointError
from ctrainer.trainer.noise import IndependentNoise
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.state import Progress

STEP = 3


def progress(*, shape: tuple[int, int] = (2, 3), name: str = "weight", secure: bool = False, seed: int = 1) -> Progress:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weight = nn.Parameter(torch.randn(shape))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    randomness = Randomness.secure() if secure else Randomness.unsafe_from_seed(seed)
    noises = IndependentNoise(blocks=[], scale=1.0, randomness=randomness)
    return Progress(weights={name: weight}, optimizer=optimizer, randomness=randomness, noises=noises)


def advance(session: Progress, steps: int) -> None:
    for _ in range(steps):
        for weight in session.weights.values():
            weight.grad = session.randomness.normal(weight.numel()).view_as(weight).float()
        session.optimizer.step()


@pytest.fixture
def files() -> dict[str, bytes]:
    session = progress()
    advance(session, STEP)
    return session.saved(STEP)


def test_a_restored_session_goes_on_exactly(files: dict[str, bytes]) -> None:
    whole = progress()
    advance(whole, STEP + 4)
    resumed = progress(seed=1)
    resumed.restore(Checkpoint(step=STEP, files=files))
    advance(resumed, 4)
    assert torch.equal(whole.weights["weight"], resumed.weights["weight"])
    assert whole.randomness.position == resumed.randomness.position


def test_the_size_of_a_checkpoint_is_known_before_it_is_made(files: dict[str, bytes]) -> None:
    assert progress().saved_bytes >= sum(len(content) for content in files.values())


def harmed(files: Mapping[str, bytes], **changes: Any) -> dict[str, bytes]:
    position = {**json.loads(files["position.json"]), **changes}
    return {**files, "position.json": json.dumps(position).encode()}


@pytest.mark.parametrize("name", ["tensors.safetensors", "position.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff" * 40, b"[1, 2"])
def test_a_file_that_is_missing_or_of_another_form_is_refused(
    files: dict[str, bytes], name: str, content: bytes | None
) -> None:
    changed = {key: value for key, value in {**files, name: content}.items() if value is not None}
    with pytest.raises(CorruptCheckpointError, match="checkpoint of step 3"):
        progress().restore(Checkpoint(step=STEP, files=changed))


def test_no_files_at_all_are_refused() -> None:
    with pytest.raises(CorruptCheckpointError, match="expected tensors"):
        progress().restore(Checkpoint(step=STEP, files={}))


def test_cut_tensors_are_refused(files: dict[str, bytes]) -> None:
    cut = {**files, "tensors.safetensors": files["tensors.safetensors"][:-5]}
    with pytest.raises(CorruptCheckpointError, match="SafetensorError"):
        progress().restore(Checkpoint(step=STEP, files=cut))


@pytest.mark.parametrize("other", [{"shape": (4, 3)}, {"shape": (3, 2)}, {"name": "another"}])
def test_a_checkpoint_of_another_adapter_is_refused_and_changes_nothing(
    files: dict[str, bytes], other: dict[str, Any]
) -> None:
    session = progress(**other, seed=2)
    before = [weight.detach().clone() for weight in session.weights.values()]
    with pytest.raises(CorruptCheckpointError, match="another adapter"):
        session.restore(Checkpoint(step=STEP, files=files))
    assert all(torch.equal(a, b) for a, b in zip(before, session.weights.values(), strict=True))
    assert not session.optimizer.state


def test_a_checkpoint_without_moments_is_refused(files: dict[str, bytes]) -> None:
    tensors = load(files["tensors.safetensors"])
    del tensors["exp_avg/weight"]
    with pytest.raises(CorruptCheckpointError, match="another adapter"):
        progress().restore(Checkpoint(step=STEP, files={**files, "tensors.safetensors": save(tensors)}))


@pytest.mark.parametrize("changes", [{"step": "3"}, {"step": -1}, {"unsafe_position": -1}, {"more": 1}])
def test_a_position_of_another_form_is_refused(files: dict[str, bytes], changes: dict[str, Any]) -> None:
    with pytest.raises(CorruptCheckpointError, match="ValidationError"):
        progress().restore(Checkpoint(step=STEP, files=harmed(files, **changes)))


def test_a_checkpoint_that_was_renamed_to_another_step_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(CorruptCheckpointError, match="its content is of step 3"):
        progress().restore(Checkpoint(step=STEP + 1, files=files))


@pytest.mark.parametrize("secure_first", [False, True])
def test_seeded_and_secure_sessions_never_continue_each_other(*, secure_first: bool) -> None:
    first = progress(secure=secure_first)
    advance(first, STEP)
    with pytest.raises(CorruptCheckpointError, match="noise of another kind"):
        progress(secure=not secure_first).restore(Checkpoint(step=STEP, files=first.saved(STEP)))
