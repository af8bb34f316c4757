"""The loss that keeps a private step private: the mean within each sample, then the sum over samples.

The mean over all tokens of a batch would let one sample's length scale the others' gradients, and void the guarantee.
"""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from ctrainer.trainer.tokenization import IGNORED, TokenBatch


def sample_losses(model: Any, batch: TokenBatch) -> torch.Tensor:
    """Return each sample's mean negative log-likelihood per learned token, in nats: shape [batch].

    Token t is predicted at t - 1. Logits are computed only where some sample of the batch learns, which saves time.
    """
    targets = batch.labels[:, 1:]
    kept = (targets != IGNORED).any(0).nonzero().flatten()
    logits = model(
        input_ids=batch.token_ids, attention_mask=batch.attention_mask, use_cache=False, logits_to_keep=kept
    ).logits
    return mean_losses(logits, targets[:, kept])


def mean_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean loss over each row's learned targets; shapes [batch, tokens, vocabulary] and [batch, tokens]."""
    losses = cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view_as(targets).sum(1) / (targets != IGNORED).sum(1).clamp(min=1)
