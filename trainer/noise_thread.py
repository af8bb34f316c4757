"""Draws noise on a thread of its own, and on a GPU on a stream of its own, beside the gradients of the same step."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

Draw = Callable[[], list[Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseThread:
    """One thread for the noise of a model on a device."""

    device: torch.device
    executor: Executor

    def begin(self, draw: Draw) -> Future[list[Tensor]]:
        """Draw now; whoever takes the result may use it at once, on the device's default stream."""
        return self.executor.submit(partial(_whole, draw, self.device))


@contextmanager
def noise_thread(device: torch.device) -> Iterator[NoiseThread]:
    """Start the thread, and wait for it at the end."""
    with ThreadPoolExecutor(
        1, thread_name_prefix="noise", initializer=_enter_own_stream, initargs=(device,)
    ) as executor:
        yield NoiseThread(device=device, executor=executor)


def _enter_own_stream(device: torch.device) -> None:
    """Make all that this thread computes on a GPU go by its own stream: the key stream's copies wait for nothing."""
    if device.type == "cuda":
        torch.cuda.set_device(torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


def _whole(draw: Draw, device: torch.device) -> list[Tensor]:
    """Draw, and wait until it is there."""
    noise = draw()
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
        for part in noise:
            # Its memory must not be taken for the next noise while the gradient's stream still reads it.
            part.record_stream(torch.cuda.default_stream(device))
    return noise
