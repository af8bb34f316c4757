"""Breaches of what a private session promises, to be planted into its process: each from one step on, none before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from ctrainer.trainer.batches import PoissonBatches
from ctrainer.trainer.per_sample import ClippedSum
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.reservations import Answer, Reservations

FIRST = 10
"""The first step that is in breach: the third of the second block."""

Now = Callable[[], int]
"""The number of the step that runs."""


def halve_the_noise(now: Now) -> None:
    sound = PrivateStep.noise

    def noise(step: PrivateStep) -> list[Tensor]:
        return [draw / 2 if now() >= FIRST else draw for draw in sound(step)]

    _put(PrivateStep, "noise", noise)


def leave_the_noise_out(now: Now) -> None:
    """Noise is drawn, judged and paid for, and the optimizer gets the gradients without it."""
    sound = PrivateStep.set_gradient

    def set_gradient(step: PrivateStep, signal: list[Tensor], noise: list[Tensor]) -> None:
        sound(step, signal, [draw * (now() < FIRST) for draw in noise])

    _put(PrivateStep, "set_gradient", set_gradient)


def pass_the_clip_norm(now: Now) -> None:
    sound = PrivateStep.signal

    def signal(step: PrivateStep, examples: list[Any]) -> ClippedSum:
        total = sound(step, examples)
        # Added, not multiplied: a batch without records has a sum of zeros.
        more = 1_000.0 if now() >= FIRST else 0.0
        return replace(total, totals=[part + more for part in total.totals])

    _put(PrivateStep, "signal", signal)


def draw_every_record(now: Now) -> None:
    """Amplification by sampling is charged for, and there is none."""
    sound = PoissonBatches.of

    def of(batches: PoissonBatches, step: int) -> list[int]:
        return list(range(batches.units)) if now() >= FIRST else sound(batches, step)

    _put(PoissonBatches, "of", of)


def ask_the_ledger_once(_: Now) -> None:
    """Every block after the first is run on the first one's grant."""
    sound = Reservations.take
    answers: list[Answer] = []

    def take(reservations: Reservations, first_step: int, steps: int) -> Answer:
        answers[:] = answers or [sound(reservations, first_step, steps)]
        return answers[0]

    def ask_ahead(*_: object, **__: object) -> None: ...

    _put(Reservations, "take", take)
    _put(Reservations, "ask_ahead", ask_ahead)


BREACHES = {
    "half-noise": halve_the_noise,
    "noise-left-out": leave_the_noise_out,
    "clip-norm-passed": pass_the_clip_norm,
    "every-record-drawn": draw_every_record,
    "ledger-asked-once": ask_the_ledger_once,
}
"""By the population for which a session trains: its process is planted with the breach that its population names."""


def _put(owner: type, name: str, method: Callable[..., object]) -> None:
    setattr(owner, name, method)
