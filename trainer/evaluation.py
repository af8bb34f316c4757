"""How well a model predicts texts, with its adapter and without it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from ctrainer.trainer.tokenization import IGNORED, EncodedExample, Span, collate

_TOKENS_AT_ONCE = 2_048
"""Most tokens, padding included, of one forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One number of the base model (its adapter disabled) and of the adapted one."""

    base: float
    adapted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A record to predict; `calls` has, for each assistant turn with tool calls, where they are."""

    example: EncodedExample
    calls: tuple[tuple[Span, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How well both models predict the learnable tokens of some texts, each token given all before it.

    `token_accuracy` is the share of tokens that are the most probable ones. `call_token_accuracy` is that of the tokens
    of tool calls (names and arguments), and `call_accuracy` the share of turns with calls in which every one of them
    is; both are None where no text has such a turn.
    """

    texts: int
    tokens: int
    perplexity: Measured
    token_accuracy: Measured
    call_accuracy: Measured | None
    call_token_accuracy: Measured | None = None


def measure_prediction(*, model: Any, texts: Sequence[Text], pad_token_id: int) -> Prediction:
    """Measure a peft model on one text or more, with its adapter disabled and enabled.

    The outcome for private texts is not private: no noise protects it.
    """
    with model.disable_adapter():
        base = _count(model, texts, pad_token_id)
    adapted = _count(model, texts, pad_token_id)
    return Prediction(
        texts=len(texts),
        tokens=base.tokens,
        perplexity=Measured(base=base.perplexity(), adapted=adapted.perplexity()),
        token_accuracy=Measured(base=base.right / base.tokens, adapted=adapted.right / base.tokens),
        call_accuracy=_shares(base.calls_right, adapted.calls_right, base.calls),
        call_token_accuracy=_shares(base.call_tokens_right, adapted.call_tokens_right, base.call_tokens),
    )


class _Counts(NamedTuple):
    loss: float
    tokens: int
    right: int
    calls: int
    calls_right: int
    call_tokens: int
    call_tokens_right: int

    def perplexity(self) -> float:
        return math.exp(min(self.loss / self.tokens, math.log(1e12)))


def _count(model: Any, texts: Sequence[Text], pad_token_id: int) -> _Counts:
    parts = [_count_batch(model, batch, pad_token_id) for batch in _batches(texts)]
    return _Counts(
        loss=sum(part.loss for part in parts),
        tokens=sum(part.tokens for part in parts),
        right=sum(part.right for part in parts),
        calls=sum(part.calls for part in parts),
        calls_right=sum(part.calls_right for part in parts),
        call_tokens=sum(part.call_tokens for part in parts),
        call_tokens_right=sum(part.call_tokens_right for part in parts),
    )


@torch.no_grad()
def _count_batch(model: Any, texts: Sequence[Text], pad_token_id: int) -> _Counts:
    batch = collate([text.example for text in texts], pad_token_id=pad_token_id).to(model.device)
    learned = batch.labels[:, 1:] != IGNORED
    kept = learned.any(0).nonzero().flatten()
    targets = batch.labels[:, 1:][:, kept]
    logits = model(
        input_ids=batch.token_ids, attention_mask=batch.attention_mask, use_cache=False, logits_to_keep=kept
    ).logits.float()
    loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
    right = torch.zeros_like(learned)
    right[:, kept] = (logits.argmax(-1) == targets) & learned[:, kept]
    turns = [(row, spans) for row, text in enumerate(texts) for spans in text.calls]
    return _Counts(
        loss=float(loss),
        tokens=int(learned.sum()),
        right=int(right.sum()),
        calls=len(turns),
        calls_right=sum(_right(right[row], spans) == _tokens(spans) for row, spans in turns),
        call_tokens=sum(_tokens(spans) for _, spans in turns),
        call_tokens_right=sum(_right(right[row], spans) for row, spans in turns),
    )


def _shares(base: int, adapted: int, of: int) -> Measured | None:
    return Measured(base=base / of, adapted=adapted / of) if of else None


def _tokens(spans: Sequence[Span]) -> int:
    return sum(span.end - span.start for span in spans)


def _right(right: torch.Tensor, spans: Sequence[Span]) -> int:
    """Return how many tokens of some spans were predicted; token t is predicted at t - 1."""
    return sum(int(right[span.start - 1 : span.end - 1].sum()) for span in spans)


def _batches(texts: Sequence[Text]) -> Iterator[list[Text]]:
    """Yield texts of like length together, so that little padding is computed."""
    batch: list[Text] = []
    for text in sorted(texts, key=lambda text: len(text.example.token_ids)):
        if batch and (len(batch) + 1) * len(text.example.token_ids) > _TOKENS_AT_ONCE:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
