"""What privacy costs: the time and peak memory of a private step over those of a non-private peft LoRA step.

All ways of making a step run in this process, in turn, on one frozen base model. Time on a CPU is processor time of one
thread, which other programs disturb least; on a GPU it is the clock, after the GPU is done. Memory is the most that
tensors of one step hold beyond the model.
"""

import argparse
import gc
import json
import random
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.dp_paths import LARGE, Shape, Step, Work, a_plan, our_step, random_rows, step_paths
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.micro_batch import MicroBatch
from ctrainer.trainer.noise_thread import noise_thread

SMOL_LAYERS, SMOL_VOCABULARY = 30, 49_152
ALWAYS = ("non_private", "ours")
OTHERS = ("opacus_hooks", "functorch", "ghost")
MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A model and the size of a batch."""

    shape: Shape
    samples: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.shape.name} {self.samples} x {self.tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One setting: seconds of a non-private step, ratios to it by path, and the noise's share of our step."""

    setting: str
    seconds: float
    time: Mapping[str, float]
    memory: Mapping[str, float]
    noise_share: float


def settings_for(device: torch.device, layers: int) -> list[Setting]:
    """Return what is measured: SmolLM2's layers on a CPU, a model of about 1.1 billion weights on a GPU."""
    if device.type == "cuda":
        return [Setting(shape=LARGE, samples=b, tokens=t) for b, t in [(8, 256), (8, 1024), (16, 512), (32, 1024)]]
    # The share of the vocabulary is that of the layers, so that both weigh what they weigh in SmolLM2-135M.
    vocabulary = SMOL_VOCABULARY * layers // SMOL_LAYERS
    smol = Shape(
        name="SmolLM2-like", layers=layers, width=576, inner=1536, heads=9, key_value_heads=3, vocabulary=vocabulary
    )
    tiny = Shape(name="tiny", layers=2, width=64, inner=128, heads=4, key_value_heads=2, vocabulary=512)
    sizes = [(4, 48), (4, 64), (2, 256), (8, 96), (8, 128)]
    return [Setting(shape=smol, samples=b, tokens=t) for b, t in sizes] + [Setting(shape=tiny, samples=8, tokens=128)]


def measure(setting: Setting, device: torch.device, *, rounds: int, others_every: int) -> Measured:
    """Measure every path in every round, in random order; those that are not ours only every few rounds."""
    rows = random_rows(setting.shape, records=setting.samples * (rounds + 2), tokens=setting.tokens)
    # All records of a step in one pass, as the other paths take them.
    computation = replace(Computation.on(device), micro_batch=MicroBatch(setting.samples))
    work = Work(computation=computation, plan=a_plan(setting.samples), rows=rows, samples=setting.samples)
    model = setting.shape.build(device)
    with ExitStack() as stack:
        paths = dict(_fitting(step_paths(model, work, stack)))
        memory = {name: _peak_memory(step, device) for name, step in paths.items()}
        seconds, ratios = _by_turns(paths, device, rounds=rounds, others_every=others_every)
        noise = our_step(model, work, stack.enter_context(noise_thread(device))).step.noise
        noise_seconds = statistics.median(_seconds(noise, device) for _ in range(rounds))
    return Measured(
        setting=str(setting),
        seconds=statistics.median(seconds["non_private"]),
        time={name: statistics.median(of_path) for name, of_path in ratios.items()},
        memory={name: peak / memory["non_private"] for name, peak in memory.items()},
        noise_share=noise_seconds / statistics.median(seconds["ours"]),
    )


def _by_turns(
    paths: Mapping[str, Step], device: torch.device, *, rounds: int, others_every: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the seconds of each path, and their ratios to those of the non-private step of the same round."""
    seconds: dict[str, list[float]] = {name: [] for name in paths}
    ratios: dict[str, list[float]] = {name: [] for name in paths}
    for number in range(rounds):
        names = [name for name in paths if name in ALWAYS or number % others_every == 0]
        random.shuffle(names)
        taken = {name: _seconds(paths[name], device) for name in names}
        for name in names:
            seconds[name].append(taken[name])
            ratios[name].append(taken[name] / taken["non_private"])
    return seconds, ratios


def _fitting(makers: Mapping[str, Callable[[], Step]]) -> Iterator[tuple[str, Step]]:
    """Make a first step in each way, which also warms up; yield those that fit into memory, as two of them must."""
    for name, make in makers.items():
        step = _first(make)
        if step is not None:
            yield name, step
        elif name in ALWAYS:
            raise MemoryError(f"{name}: one step does not fit into memory")
        # What did not fit lies in cycles of modules and hooks.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _first(make: Callable[[], Step]) -> Step | None:
    step = make()
    try:
        step()
    except torch.OutOfMemoryError:
        return None
    return step


def _seconds(act: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    _wait(device)
    start = clock()
    act()
    _wait(device)
    return clock() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(step: Step, device: torch.device) -> float:
    """Return the most MiB that tensors of one step hold at once, beyond what is held before it."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / MEBIBYTE
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = most = 0
    for _, change in changes:
        held += change
        most = max(most, held)
    return most / MEBIBYTE


def summary(measured: Sequence[Measured], device: torch.device) -> dict[str, float | str | None]:
    """Return the medians over the settings; None for a path that fits into memory in none of them."""

    def median(ratios: Iterator[float]) -> float | None:
        known = list(ratios)
        return round(statistics.median(known), 3) if known else None

    return {
        "time_ratio": median(one.time["ours"] for one in measured),
        "memory_ratio": median(one.memory["ours"] for one in measured),
        **{f"time_ratio_{name}": median(one.time[name] for one in measured if name in one.time) for name in OTHERS},
        "device": str(torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"),
    }


def _line(one: Measured) -> str:
    ratios = "  ".join(
        f"{name} {one.time[name]:.2f}/{one.memory[name]:.2f}" for name in ("ours", *OTHERS) if name in one.time
    )
    return f"{one.setting:22} {one.seconds:8.3f} s  {ratios}  noise {one.noise_share:.1%}"


def main() -> None:
    """Print the ratios of each setting, and their medians as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--layers", type=int, default=6, help=f"of the {SMOL_LAYERS} of SmolLM2-135M, on a CPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--others-every", type=int, default=3, help="rounds between those with the paths of Opacus")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    chosen = arguments.device if arguments.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(chosen)
    if device.type == "cpu":
        torch.set_num_threads(1)
    if not arguments.json:
        print("setting, non-private step, then time/memory over it; the noise's share of our step")
    measured = []
    for setting in settings_for(device, arguments.layers):
        one = measure(setting, device, rounds=arguments.rounds, others_every=arguments.others_every)
        measured.append(one)
        if not arguments.json:
            print(_line(one), flush=True)
    print(json.dumps(summary(measured, device)))


if __name__ == "__main__":
    main()
