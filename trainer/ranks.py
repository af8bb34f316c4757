"""Several processes that train one adapter: each has the whole dataset and its own copy of the model.

The first rank leads: it alone draws the global Poisson sample, asks the ledger, adds noise, and saves. Every rank takes
part in every exchange, also with an empty share of a batch, so that none waits for ever.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
from torch import Tensor, distributed

from ctrainer.trainer.per_sample import ClippedSum

LEADER = 0
Decided = TypeVar("Decided")


class Ranks(Protocol):
    """How the processes of one session work together."""

    @property
    def leads(self) -> bool:
        """Whether this process decides."""

    def decide(self, decision: Callable[[], Decided]) -> Decided:
        """Return on every rank what `decision` returns on the leader, the only one to call it."""

    def share(self, members: Sequence[int]) -> Sequence[int]:
        """Return this rank's part of a batch; the parts of all ranks are the whole."""

    def total(self, part: ClippedSum) -> ClippedSum:
        """Return on the leader the sum over all ranks; what others get is of no use."""

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the leader."""

    def leave(self) -> None:
        """Part from the other ranks: nothing is decided together any more."""


@dataclass(frozen=True, slots=True)
class OneRank:
    """A process that trains alone."""

    @property
    def leads(self) -> bool:
        """True."""
        return True

    def decide(self, decision: Callable[[], Decided]) -> Decided:
        """Return the decision."""
        return decision()

    def share(self, members: Sequence[int]) -> Sequence[int]:
        """Return all members."""
        return members

    def total(self, part: ClippedSum) -> ClippedSum:
        """Return the sum."""
        return part

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Leave the tensors as they are."""

    def leave(self) -> None:
        """Stay alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchRanks:
    """The processes that torchrun started."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: torch.device, *, patience: timedelta = timedelta(minutes=10)) -> "TorchRanks":
        """Meet the other ranks: over NCCL for GPUs, else over gloo. Who waits longer than `patience` gives up."""
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
        return cls(rank=distributed.get_rank(), size=distributed.get_world_size(), device=device)

    def leave(self) -> None:
        """Part from the other ranks."""
        distributed.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this is the first rank."""
        return self.rank == LEADER

    def decide(self, decision: Callable[[], Decided]) -> Decided:
        """Send the leader's decision to all."""
        decided: list[Decided | None] = [decision() if self.leads else None]
        distributed.broadcast_object_list(decided, src=LEADER, device=self.device)
        return decided[0]  # type: ignore[return-value]

    def share(self, members: Sequence[int]) -> Sequence[int]:
        """Return every `size`-th member, from this rank's on."""
        return members[self.rank :: self.size]

    def total(self, part: ClippedSum) -> ClippedSum:
        """Add up on the leader; the largest summand is the largest of all."""
        counted = torch.tensor([float(part.not_finite)], device=self.device)
        largest = torch.tensor([part.largest], device=self.device)
        flat = torch.cat([*part.totals, counted])
        distributed.reduce(flat, dst=LEADER)
        distributed.reduce(largest, dst=LEADER, op=distributed.ReduceOp.MAX)
        *totals, counted = torch.split(flat, [*(len(total) for total in part.totals), 1])
        return ClippedSum(
            totals=totals,
            not_finite=int(counted) if self.leads else part.not_finite,
            largest=float(largest) if self.leads else part.largest,
        )

    def follow(self, tensors: Iterable[Tensor]) -> None:
        """Copy the leader's tensors, in one exchange."""
        listed = list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in listed])
        distributed.broadcast(flat, src=LEADER)
        for tensor, part in zip(listed, torch.split(flat, [tensor.numel() for tensor in listed]), strict=True):
            tensor.copy_(part.view_as(tensor))
