"""An audit from nothing: a tiny random model with an adapter, made-up records, one private step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.canary_audit import CanaryAudit
from ctrainer.trainer.canary_run import audit_step
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.micro_batch import MicroBatch
from ctrainer.trainer.models import load_model
from ctrainer.trainer.per_sample import per_sample_gradients
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tiny_model import save_tiny_model
from ctrainer.trainer.tokenization import EncodedExample

_LENGTHS = (96, 6, 6, 6, 6, 6, 6, 6)
_DELTA = 1e-5


def audit_tiny_model(folder: Path, *, noise_multiplier: float, unsafe_seed: int | None = None) -> CanaryAudit:
    """Audit one step of a tiny random model, saved below `folder`. Takes seconds on one core."""
    with trial_step(folder, noise_multiplier=noise_multiplier, unsafe_seed=unsafe_seed) as step:
        return audit_step(step, made_up_examples())


@contextmanager
def trial_step(folder: Path, *, noise_multiplier: float, unsafe_seed: int | None = None) -> Iterator[PrivateStep]:
    """Yield a private step of the tiny model whose adapter gets real gradients."""
    language_model = load_model(str(save_tiny_model(folder / "model", seed=1)), cache_folder=folder)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = add_adapter(language_model.model, LoraSettings(rank=4, alpha=8))
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                # Zeros, as training starts with, would leave the inner weights without any gradient.
                torch.nn.init.normal_(parameter, std=0.1)
    secure = unsafe_seed is None
    with per_sample_gradients(model) as gradients:
        yield PrivateStep(
            model=model,
            gradients=gradients,
            plan=_plan(noise_multiplier),
            randomness=Randomness.secure() if secure else Randomness.unsafe_from_seed(unsafe_seed or 0),
            # One pass for all lengths: what a loss mixes up over a batch shows only where they are together.
            computation=Computation(micro_batch=MicroBatch(len(_LENGTHS)), pass_tokens=1_000_000),
            pad_token_id=0,
        )


def made_up_examples() -> list[EncodedExample]:
    """Return one long record and several short ones, which a loss over the whole batch would mix up."""
    rows = [tuple(3 + (7 * place) % 90 for place in range(length)) for length in _LENGTHS]
    return [EncodedExample(token_ids=row, labels=row) for row in rows]


def _plan(noise_multiplier: float) -> PrivacyPlan:
    return PrivacyPlan(
        noise_multiplier=noise_multiplier,
        sampling_rate=1.0,
        expected_batch_size=float(len(_LENGTHS)),
        clip_norm=0.5,
        steps=1,
        delta=_DELTA,
        epsilon_ceiling=8.0,
        epsilon_planned=8.0,
    )
