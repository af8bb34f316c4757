"""What each rank of a torchrun job runs: train the tiny model, and let the leader save the adapter's weights."""

import json
import sys
from pathlib import Path
from typing import NoReturn

import torch
from safetensors.torch import save_file

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.ledger import Granted
from ctrainer.trainer.loop import Reserve, train
from ctrainer.trainer.models import load_model
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.ranks import OneRank, Ranks, TorchRanks
from ctrainer.trainer.tokenization import EncodedExample


def main(folder: Path, *, alone: bool, steps: int, rate: float) -> None:
    """Train for some steps, from the newest checkpoint in the folder on."""
    torch.set_num_threads(1)
    ranks = OneRank() if alone else TorchRanks.join(torch.device("cpu"))
    # Ranks that follow begin with other weights and another seed: both must come from the leader.
    torch.manual_seed(1 if ranks.leads else 2)
    model = add_adapter(load_model(str(folder / "model"), cache_folder=folder).model, LoraSettings(rank=2, alpha=4))
    checkpoints = Checkpoints(folder=folder / ("alone" if alone else "together"))
    asked: list[int] = []

    def reserve(first_step: int, _: int) -> Granted:
        asked.append(first_step)
        return Granted(epsilon=1.0, rdp=NOTHING, alert=False)

    decide: Reserve = reserve if ranks.leads else refuse_to_decide
    outcome = train(
        model=model,
        examples=examples(),
        pad_token_id=0,
        plan=plan(steps, rate),
        learning_rate=1e-2,
        randomness=Randomness.unsafe_from_seed(9 if ranks.leads else 10),
        reserve=decide,
        on_block=lambda _: None,
        should_stop=(lambda: False) if ranks.leads else refuse_to_decide,
        checkpoints=checkpoints,
        start=checkpoints.newest().checkpoint if ranks.leads else None,
        block_steps=4,
        ranks=ranks,
    )
    report(model, folder, ranks, {"asked": asked, "end": outcome.end, "step": outcome.step})
    if isinstance(ranks, TorchRanks):
        ranks.leave()


def report(model: torch.nn.Module, folder: Path, ranks: Ranks, found: dict[str, object]) -> None:
    """Save this rank's weights and what it saw."""
    name = f"rank-{ranks.rank}" if isinstance(ranks, TorchRanks) else "alone"
    weights = {key: weight.detach() for key, weight in model.named_parameters() if weight.requires_grad}
    save_file(weights, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(found))


def examples() -> list[EncodedExample]:
    """Return records of several lengths."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, 200, (5 + number % 9,), generator=generator).tolist() for number in range(30)]
    return [EncodedExample(token_ids=tuple(row), labels=tuple(row)) for row in rows]


def plan(steps: int, rate: float) -> PrivacyPlan:
    """Return a plan of some steps, each with a record by chance of `rate`."""
    return PrivacyPlan(
        noise_multiplier=0.5,
        sampling_rate=rate,
        expected_batch_size=3.0,
        clip_norm=0.5,
        steps=steps,
        delta=1e-5,
        epsilon_ceiling=8.0,
        epsilon_planned=7.0,
    )


def refuse_to_decide(*_: int) -> NoReturn:
    """Fail: only the leader decides."""
    raise AssertionError("a rank that follows was asked to decide")


if __name__ == "__main__":
    main(Path(sys.argv[1]), alone=sys.argv[2] == "alone", steps=int(sys.argv[3]), rate=float(sys.argv[4]))
