import json
from pathlib import Path

import pytest
import torch

from benchmarks.dp_paths import Shape, Work, a_plan, our_step, random_rows
from benchmarks.dp_step import MEBIBYTE, _peak_memory
from benchmarks.session_memory import Setting, measure
from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.evaluation import _TOKENS_AT_ONCE
from ctrainer.trainer.memory_need import (
    _EVALUATED_TOKENS,
    SMOLLM2_135M,
    ModelShape,
    memory_need,
    most_tokens,
    shape_of,
    training_bytes,
)
from ctrainer.trainer.micro_batch import CPU_MICRO_BATCH
from ctrainer.trainer.models import DEFAULT_MODEL
from ctrainer.trainer.noise_thread import noise_thread
from ctrainer.trainer.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), seed=7)


def test_the_estimate_is_near_the_peak_of_a_process_that_does_the_work_of_a_session(tiny: Path) -> None:
    measured = measure(Setting(model=str(tiny), rank=8, max_tokens=128))
    assert 0.85 <= measured["ratio"] <= 1.3


@pytest.mark.parametrize(("vocabulary", "rank"), [(4_096, 8), (512, 64)])
def test_the_estimate_of_a_step_is_near_what_its_tensors_take(vocabulary: int, rank: int) -> None:
    cpu = torch.device("cpu")
    sizes = Shape(name="", layers=2, width=64, inner=160, heads=4, key_value_heads=2, vocabulary=vocabulary)
    shape = ModelShape(layers=2, hidden=64, intermediate=160, queries=64, keys=32, vocabulary=vocabulary, tied=True)
    records = CPU_MICRO_BATCH.records
    rows = random_rows(sizes, records=records, tokens=48)
    work = Work(computation=Computation(), plan=a_plan(records), rows=rows, samples=records)
    with noise_thread(cpu) as thread:
        step = our_step(sizes.build(cpu, rank=rank), work, thread).step
    batch = next(work.batches(cpu))
    step.clipped_sum(batch)

    def one_pass() -> None:
        step.clipped_sum(batch)

    measured = _peak_memory(one_pass, cpu) * MEBIBYTE
    estimated = training_bytes(shape, LoraSettings(rank=rank), max_tokens=48, records=records)
    assert 0.8 <= estimated / measured <= 1.35


def test_the_sizes_of_a_model_are_read_from_where_it_lies(tiny: Path) -> None:
    assert shape_of(str(tiny)) == ModelShape(
        layers=2, hidden=32, intermediate=64, queries=32, keys=16, vocabulary=259, tied=True
    )
    assert shape_of(DEFAULT_MODEL) == SMOLLM2_135M


@pytest.mark.parametrize("change", [{"hidden_size": None}, {"num_hidden_layers": "many"}, {"num_local_experts": 8}])
def test_a_model_that_does_not_tell_its_sizes_has_no_estimate(
    tiny: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    config = json.loads((tiny / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    assert shape_of(str(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "[]", "no json"])
def test_a_broken_configuration_has_no_estimate(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert shape_of(str(tmp_path)) is None


def test_a_model_that_is_not_on_this_machine_has_no_estimate() -> None:
    assert shape_of("acme/never-downloaded") is None


def test_what_would_fit_is_the_largest_that_does() -> None:
    lora, within = LoraSettings(), 4 * 1024**3
    fitting = most_tokens(SMOLLM2_135M, lora, within=within)
    assert fitting is not None
    assert memory_need(SMOLLM2_135M, lora, max_tokens=fitting) <= within
    assert memory_need(SMOLLM2_135M, lora, max_tokens=fitting + 1) > within
    assert most_tokens(SMOLLM2_135M, lora, within=1024**3) is None


def test_the_estimate_knows_how_much_is_evaluated_at_once() -> None:
    assert _EVALUATED_TOKENS == _TOKENS_AT_ONCE
