"""Two processes that torchrun starts train the adapter that one process would."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from ctrainer.trainer.tiny_model import save_tiny_model

PROGRAM = Path(__file__).with_name("rank_program.py")
SECONDS = 240


def weights(folder: Path, name: str) -> torch.Tensor:
    return torch.cat([weight.flatten() for _, weight in sorted(load_file(folder / f"{name}.safetensors").items())])


def seen(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def test_two_ranks_train_the_adapter_of_one_also_when_they_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", seed=1)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(PROGRAM), str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert finished.returncode == 0, finished.stderr[-3_000:]
    alone, leader, follower = (weights(tmp_path, name) for name in ("alone", "together-0", "together-1"))
    assert torch.equal(leader, follower)
    assert float((leader - alone).norm() / alone.norm()) <= 1e-5
    assert seen(tmp_path, "alone") == {"asked": [0, 4, 8], "end": "completed", "step": 12}
    assert seen(tmp_path, "together-0") == {"asked": [4, 8], "end": "completed", "step": 12}
    assert seen(tmp_path, "together-1") == {"asked": [], "end": "completed", "step": 12}
