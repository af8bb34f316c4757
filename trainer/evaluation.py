"""How well a model predicts held-out records, with its adapter and without it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.tokenization import IGNORED, EncodedExample, collate


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """Perplexity per learned token of the base model and of the adapted one. Not private: for the operator only."""

    base: float
    adapted: float


def held_out_perplexity(
    *, model: Any, examples: Sequence[EncodedExample], pad_token_id: int, micro_batch: int = 8
) -> Perplexity | None:
    """Measure a peft model on held-out examples, with its adapter disabled and enabled; None without examples."""
    if not examples:
        return None
    with model.disable_adapter():
        base = _perplexity(model, examples, pad_token_id, micro_batch)
    return Perplexity(base=base, adapted=_perplexity(model, examples, pad_token_id, micro_batch))


@torch.no_grad()
def _perplexity(model: Any, examples: Sequence[EncodedExample], pad_token_id: int, micro_batch: int) -> float:
    total, tokens = 0.0, 0
    by_length = sorted(examples, key=lambda example: len(example.token_ids))
    for start in range(0, len(by_length), micro_batch):
        batch = collate(by_length[start : start + micro_batch], pad_token_id=pad_token_id).to(model.device)
        learned = (batch.labels[:, 1:] != IGNORED).sum(1)
        total += float((sample_losses(model, batch) * learned).sum())
        tokens += int(learned.sum())
    return math.exp(min(total / tokens, math.log(1e12)))
