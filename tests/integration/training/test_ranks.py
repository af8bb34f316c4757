"""Two processes that torchrun starts train the adapter that one process would."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ctrainer.trainer.tiny_model import save_tiny_model

PROGRAM = Path(__file__).with_name("rank_program.py")
SECONDS = 240


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny_model(tmp_path / "model", seed=1)
    return tmp_path


def run(command: list[str]) -> None:
    finished = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert finished.returncode == 0, finished.stderr[-3_000:]


def run_alone(folder: Path, *, steps: int, rate: float) -> None:
    run([sys.executable, str(PROGRAM), str(folder), "alone", str(steps), str(rate)])


def run_two(folder: Path, *, steps: int, rate: float) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run([*torchrun, str(PROGRAM), str(folder), "together", str(steps), str(rate)])


def weights(folder: Path, name: str) -> torch.Tensor:
    return torch.cat([weight.flatten() for _, weight in sorted(load_file(folder / f"{name}.safetensors").items())])


def seen(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def test_two_ranks_train_the_adapter_of_one_also_when_they_are_resumed(folder: Path) -> None:
    # Some batches of 30 records are empty at this rate, and some leave a rank without a share.
    rate = 0.05
    run_alone(folder, steps=12, rate=rate)
    run_two(folder, steps=4, rate=rate)
    run_two(folder, steps=12, rate=rate)
    alone, leader, follower = (weights(folder, name) for name in ("alone", "rank-0", "rank-1"))
    assert torch.equal(leader, follower)
    assert float((leader - alone).norm() / alone.norm()) <= 1e-5
    assert seen(folder, "alone") == {"asked": [0, 4, 8], "end": "completed", "step": 12}
    assert seen(folder, "rank-0") == {"asked": [4, 8], "end": "completed", "step": 12}
    assert seen(folder, "rank-1") == {"asked": [], "end": "completed", "step": 12}
