import torch

from benchmarks.dp_paths import Shape
from benchmarks.dp_step import Measured, Setting, measure, summary

CPU = torch.device("cpu")
PATHS = {"non_private", "ours", "opacus_hooks", "functorch", "ghost"}


def test_every_way_to_make_a_step_is_measured() -> None:
    shape = Shape(name="tiny", layers=1, width=32, inner=32, heads=4, key_value_heads=2, vocabulary=64)
    measured = measure(Setting(shape=shape, samples=2, tokens=8), CPU, rounds=1, others_every=1)
    assert set(measured.time) == set(measured.memory) == PATHS
    assert measured.time["non_private"] == measured.memory["non_private"] == 1.0
    assert all(ratio > 0 for ratio in [*measured.time.values(), *measured.memory.values(), measured.noise_share])


def test_the_last_line_has_the_medians_over_the_settings() -> None:
    measured = [
        Measured(
            setting=str(ratio),
            seconds=1.0,
            time=dict.fromkeys(PATHS, ratio),
            memory=dict.fromkeys(PATHS, 2 * ratio),
            noise_share=0.01,
        )
        for ratio in (1.0, 3.0, 2.0)
    ]
    del measured[0].time["ghost"]  # type: ignore[attr-defined]
    assert summary(measured, CPU) == {
        "time_ratio": 2.0,
        "memory_ratio": 4.0,
        "time_ratio_opacus_hooks": 2.0,
        "time_ratio_functorch": 2.0,
        "time_ratio_ghost": 2.5,
        "device": "cpu",
    }
