"""What each rank of a torchrun job runs: train the tiny model together, stop, go on, and then alone on the leader."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.ledger import Granted
from ctrainer.trainer.loop import train
from ctrainer.trainer.models import load_model
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.ranks import OneRank, Ranks, TorchRanks
from ctrainer.trainer.tokenization import EncodedExample

SAMPLING_RATE = 0.05
"""Of 30 records: some batches are empty, and some leave a rank without a share."""


def main(folder: Path) -> None:
    """Train in every way, and save the weights and what was seen of each."""
    torch.set_num_threads(1)
    ranks = TorchRanks.join(torch.device("cpu"))
    train_to(4, folder, "together", ranks, f"stopped-{ranks.rank}")
    train_to(12, folder, "together", ranks, f"together-{ranks.rank}")
    ranks.leave()
    if ranks.leads:
        train_to(12, folder, "alone", OneRank(), "alone")


def train_to(steps: int, folder: Path, checkpoint_name: str, ranks: Ranks, name: str) -> None:
    """Train up to some step, from the newest checkpoint on, and save weights and what was seen under a name."""
    # Ranks that follow begin with other weights and another seed: both must come from the leader.
    torch.manual_seed(1 if ranks.leads else 2)
    model = add_adapter(load_model(str(folder / "model"), cache_folder=folder).model, LoraSettings(rank=2, alpha=4))
    checkpoints = Checkpoints(folder=folder / checkpoint_name)
    asked: list[int] = []

    def reserve(first_step: int, _: int) -> Granted:
        asked.append(first_step)
        return Granted(epsilon=1.0, rdp=NOTHING, alert=False)

    def should_stop() -> bool:
        if not ranks.leads:
            raise AssertionError("a rank that follows was asked to decide")
        return False

    outcome = train(
        model=model,
        examples=examples(),
        pad_token_id=0,
        plan=plan(steps),
        learning_rate=1e-2,
        randomness=Randomness.unsafe_from_seed(9 if ranks.leads else 10),
        reserve=reserve,
        on_block=lambda _: None,
        should_stop=should_stop,
        checkpoints=checkpoints,
        start=checkpoints.newest().checkpoint if ranks.leads else None,
        block_steps=4,
        ranks=ranks,
    )
    weights = {key: weight.detach() for key, weight in model.named_parameters() if weight.requires_grad}
    save_file(weights, folder / f"{name}.safetensors")
    seen = {"asked": asked, "end": outcome.end, "step": outcome.step}
    (folder / f"{name}.json").write_text(json.dumps(seen))


def examples() -> list[EncodedExample]:
    """Return records of several lengths."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, 200, (5 + number % 9,), generator=generator).tolist() for number in range(30)]
    return [EncodedExample(token_ids=tuple(row), labels=tuple(row)) for row in rows]


def plan(steps: int) -> PrivacyPlan:
    """Return a plan of some steps."""
    return PrivacyPlan(
        noise_multiplier=0.5,
        sampling_rate=SAMPLING_RATE,
        expected_batch_size=3.0,
        clip_norm=0.5,
        steps=steps,
        delta=1e-5,
        epsilon_ceiling=8.0,
        epsilon_planned=7.0,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
