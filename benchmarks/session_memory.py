"""What a session needs in memory: the estimate that queueing goes by, beside the peak of a process that does its work.

Each setting runs in a process of its own, with records as long as `max_tokens` allows: the model is loaded, trained for
a few steps, evaluated and probed, as a session does it. The peak is the most that was resident at once (VmHWM); on a
GPU that nobody else uses, the most that torch held of it, and the context.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.dp_paths import LARGE
from ctrainer.agents.answer_judge import AnswerJudge
from ctrainer.agents.compliance.loading import default_constitution
from ctrainer.schemas.training import LoraSettings
from ctrainer.streams.settings import Settings
from ctrainer.trainer.accounting import NOTHING
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.checkpoint import Checkpoints
from ctrainer.trainer.computation import placed
from ctrainer.trainer.evaluation import Text, measure_prediction
from ctrainer.trainer.ledger import Granted
from ctrainer.trainer.loop import train
from ctrainer.trainer.memory_need import memory_need, shape_of
from ctrainer.trainer.micro_batch import CPU_MICRO_BATCH, GPU_MICRO_BATCH
from ctrainer.trainer.models import DEFAULT_MODEL, LanguageModel, load_model
from ctrainer.trainer.plan import PrivacyPlan, make_plan
from ctrainer.trainer.probes import Probes, base_probe_answers, measure_probes
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tiny_model import save_tiny_model
from ctrainer.trainer.tokenization import EncodedExample

_STATUS = Path("/proc/self/status")
_FORGET = Path("/proc/self/clear_refs")
_MEBIBYTE = 2**20
_BATCH = 2 * GPU_MICRO_BATCH.records if torch.cuda.is_available() else 2 * CPU_MICRO_BATCH.records
"""Records expected in a batch: more than one pass takes."""
_EVALUATED_TOKENS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a session is asked to train; `rank` is that of its adapter."""

    model: str
    rank: int
    max_tokens: int


def device() -> torch.device:
    """Return where sessions train."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def peak() -> int:
    """Return the most bytes that this process held of its device at once, since the start or `forget_peak`."""
    return _gpu_peak() if torch.cuda.is_available() else _resident_peak()


def _gpu_peak() -> int:
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved() + torch.cuda.max_memory_reserved()


def _resident_peak() -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Begin the peak anew."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        _FORGET.write_text("5")


def work(setting: Setting, cache: Path) -> dict[str, int]:
    """Do the work of a session in this process; return the peak of each part, in bytes."""
    peaks = {"imported": peak()}
    language_model = load_model(setting.model, cache_folder=cache)
    peaks["loaded"] = peak()
    model = add_adapter(placed(language_model.model, device()), LoraSettings(rank=setting.rank))
    examples = _examples(setting.max_tokens, len(language_model.tokenizer))
    forget_peak()
    _train(model, examples, language_model.tokenizer.pad_token_id)
    peaks["trained"] = peak()
    forget_peak()
    texts = [Text(example=example) for example in examples]
    measure_prediction(model=model, texts=texts, pad_token_id=language_model.tokenizer.pad_token_id)
    peaks["evaluated"] = peak()
    forget_peak()
    _probe(LanguageModel(name=setting.model, model=model, tokenizer=language_model.tokenizer))
    peaks["probed"] = peak()
    return peaks


def _examples(tokens: int, vocabulary: int) -> list[EncodedExample]:
    random.seed(1)
    rows = (
        [random.randrange(vocabulary) for _ in range(tokens)]
        for _ in range(max(2 * _BATCH, _EVALUATED_TOKENS // tokens))
    )
    return [EncodedExample(token_ids=row, labels=row) for row in map(tuple, rows)]


def _plan(records: int) -> PrivacyPlan:
    """Return a plan that promises nothing for so few records: its noise takes as much memory as any."""
    plan = make_plan(epsilon=8.0, delta=1e-5, records=1_000, expected_batch_size=_BATCH, steps=3, clip_norm=1.0)
    if not isinstance(plan, PrivacyPlan):
        raise SystemExit("; ".join(fault.message for fault in plan))
    return replace(plan, sampling_rate=_BATCH / records)


def _train(model: Any, examples: Sequence[EncodedExample], pad_token_id: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train(
            model=model,
            examples=examples,
            pad_token_id=pad_token_id,
            plan=_plan(len(examples)),
            learning_rate=1e-3,
            randomness=Randomness.secure(),
            reserve=lambda _first, _steps: Granted(epsilon=0.0, rdp=NOTHING, alert=False),
            on_block=lambda _step: None,
            should_stop=lambda: False,
            checkpoints=Checkpoints(folder=Path(folder)),
        )


def _probe(language_model: LanguageModel) -> None:
    model, tokenizer = language_model.model, language_model.tokenizer
    measure_probes(
        model=model,
        tokenizer=tokenizer,
        probes=Probes.packaged(),
        judge=AnswerJudge(default_constitution()),
        base_answers=lambda prompts: base_probe_answers(model, tokenizer, prompts),
    )


def measure(setting: Setting) -> dict[str, Any]:
    """Return the estimate and the peak of one setting, in MiB; the work is done in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.session_memory", "--work", json.dumps(asdict(setting))]
    worked = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this very program
    peaks = json.loads(worked.stdout.splitlines()[-1])
    shape = shape_of(setting.model)
    if shape is None:
        raise SystemExit(f"{setting.model}: nothing is known of its sizes")
    on_gpu = torch.cuda.is_available()
    need = memory_need(
        shape,
        LoraSettings(rank=setting.rank),
        max_tokens=setting.max_tokens,
        micro_batch=GPU_MICRO_BATCH if on_gpu else CPU_MICRO_BATCH,
        bfloat16=on_gpu,
    )
    most = max(peaks.values())
    mebibytes = {name: round(size / _MEBIBYTE) for name, size in {**peaks, "estimate": need, "peak": most}.items()}
    return {**asdict(setting), **mebibytes, "ratio": round(need / most, 2)}


def _settings(folder: Path) -> dict[str, str]:
    """Return the models to measure by name; on a GPU one of about 1.1 billion random weights is made for it."""
    tiny = save_tiny_model(folder / "tiny", seed=7)
    if not torch.cuda.is_available():
        return {"tiny": str(tiny), DEFAULT_MODEL: DEFAULT_MODEL}
    large = folder / "large"
    LARGE.random_weights(torch.bfloat16).save_pretrained(large)
    for file in tiny.glob("*token*"):
        shutil.copy(file, large)
    shutil.copy(tiny / "chat_template.jinja", large)
    return {"tiny": str(tiny), LARGE.name: str(large)}


def main() -> None:
    """Print one JSON object for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-tokens", nargs="+", type=int, default=[64, 128, 512])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cache = Settings.read().cache_folder
    if arguments.work:
        torch.set_num_threads(1)
        print(json.dumps(work(Setting(**json.loads(arguments.work)), cache)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, model in _settings(Path(folder)).items():
            for tokens in arguments.max_tokens:
                measured = measure(Setting(model=model, rank=arguments.rank, max_tokens=tokens))
                print(json.dumps({**measured, "model": name}), flush=True)


if __name__ == "__main__":
    main()
