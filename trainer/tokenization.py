"""From a conversation to token ids and labels."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ctrainer.schemas.training import Objective

IGNORED = -100
"""The label of a token that is not learned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedExample:
    """One record: `token_ids` and `labels` of equal length, at most `max_tokens`; at least one label is not ignored."""

    token_ids: tuple[int, ...]
    labels: tuple[int, ...]


class Span(NamedTuple):
    """Token indices `[start, end)` of one record."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Right-padded examples: three integer tensors of shape [batch, tokens]."""

    token_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> "TokenBatch":
        """Return the batch on a device."""
        return TokenBatch(
            token_ids=self.token_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
        )


def encode(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    objective: Objective,
    max_tokens: int,
) -> EncodedExample | None:
    """Encode one conversation; None when nothing is left to learn within `max_tokens`.

    SFT learns every assistant turn, each with its end marker; DAPT learns the whole text.
    """
    turns = [_renderable(message) for message in messages]
    token_ids = _render(turns, tools, tokenizer)
    learned = [True] * len(token_ids) if objective is Objective.DAPT else _learned(turns, tools, tokenizer)
    labels = tuple(token if learn else IGNORED for token, learn in zip(token_ids, learned, strict=True))[:max_tokens]
    if all(label == IGNORED for label in labels[1:]):
        return None
    return EncodedExample(token_ids=tuple(token_ids[:max_tokens]), labels=labels)


def call_spans(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    max_tokens: int,
) -> tuple[tuple[Span, ...], ...]:
    """Return where the tool calls of a conversation are among its token ids: for each turn that calls, its calls.

    A turn with a call beyond `max_tokens`, or one that the chat template does not render as it is, is left out.
    """
    text = _text([_renderable(message) for message in messages], tools, tokenizer)
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][:max_tokens]
    found, cursor = [], 0
    for message in messages:
        spans = []
        for call in message.get("tool_calls") or ():
            spelled = _spelled(call["function"])
            start = text.find(spelled, cursor)
            cursor = max(cursor, start + len(spelled))
            spans.append(_tokens_between(places, start, start + len(spelled)) if start >= 0 else None)
        if spans and all(spans):
            found.append(tuple(span for span in spans if span))
    return tuple(found)


def collate(examples: Sequence[EncodedExample], *, pad_token_id: int) -> TokenBatch:
    """Pad examples on the right to the longest of them."""
    longest = max(len(example.token_ids) for example in examples)

    def padded(rows: Sequence[Sequence[int]], filler: int) -> torch.Tensor:
        return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])

    return TokenBatch(
        token_ids=padded([example.token_ids for example in examples], pad_token_id),
        attention_mask=padded([[1] * len(example.token_ids) for example in examples], 0),
        labels=padded([example.labels for example in examples], IGNORED),
    )


def _tokens_between(places: Sequence[tuple[int, int]], start: int, end: int) -> Span | None:
    """Return the tokens that have letters of `text[start:end]`, or None where the last of them is not there."""
    inside = [token for token, (first, last) in enumerate(places) if first < end and last > start]
    return Span(inside[0], inside[-1] + 1) if inside and places[inside[-1]][1] >= end else None


def _learned(turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[bool]:
    """Mark the tokens of assistant turns: those that rendering one turn more adds after the assistant's header."""
    learned: list[bool] = []
    for count, turn in enumerate(turns, start=1):
        end = len(_render(turns[:count], tools, tokenizer))
        if turn["role"] == "assistant":
            start = len(_render(turns[: count - 1], tools, tokenizer, opened=True))
            learned.extend([False] * (start - len(learned)))
            learned.extend([True] * (end - len(learned)))
        else:
            learned.extend([False] * (end - len(learned)))
    return learned


def _render(
    turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], tokenizer: Any, *, opened: bool = False
) -> list[int]:
    """Return the token ids of the rendered turns; `opened` adds the header of an assistant's turn."""
    if not turns:
        return []
    return list(tokenizer(_text(turns, tools, tokenizer, opened=opened), add_special_tokens=False)["input_ids"])


def _text(
    turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], tokenizer: Any, *, opened: bool = False
) -> str:
    text: str = tokenizer.apply_chat_template(
        turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=opened
    )
    return text


def _renderable(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a turn as any chat template can render it: calls of tools stand in the text where it has none."""
    calls = message.get("tool_calls") or ()
    spelled = "\n".join(_spelled(call["function"]) for call in calls)
    content = "\n".join(part for part in (message.get("content") or "", spelled) if part)
    return {"role": message["role"], "content": content}


def _spelled(function: Mapping[str, Any]) -> str:
    """Return a call as Hermes-style models write it; `arguments` is JSON text already."""
    return f'<tool_call>{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"]}}}</tool_call>'
