"""The loss that keeps a private step private: the mean within each sample, then the sum over samples.

The mean over all tokens of a batch would let one sample's length scale the others' gradients, and void the guarantee.
"""

import torch
from torch.nn.functional import cross_entropy

from ctrainer.trainer.tokenization import IGNORED


def per_sample_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return each sample's mean negative log-likelihood per learned token, in nats: shape [batch].

    `logits` has shape [batch, tokens, vocabulary], `labels` [batch, tokens]; token t is predicted at t - 1.
    """
    targets = labels[:, 1:]
    rows = logits[:, :-1].flatten(0, 1).float()
    losses = cross_entropy(rows, targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view_as(targets).sum(1) / learned_tokens(labels).clamp(min=1)


def learned_tokens(labels: torch.Tensor) -> torch.Tensor:
    """Return how many tokens each sample learns: shape [batch]."""
    return (labels[:, 1:] != IGNORED).sum(1)
