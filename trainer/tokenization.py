"""From a conversation to token ids and labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

import torch

from ctrainer.schemas.training import Objective
from ctrainer.trainer.chat_text import ChatText, Turns, UnrenderableError
from ctrainer.trainer.learned_turns import learned_turns, shared

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
    """Encode one conversation; None when nothing is left to learn within `max_tokens`, or no template renders it.

    SFT learns every assistant turn, each with its end marker; DAPT learns the whole text. Control tokens are those of
    the chat template alone: one that somebody spelled is text.

    Raises:
        UnusableTemplateError: the tokenizer has no chat template to render any conversation with.
    """
    chat = ChatText(tokenizer)
    turns, offered = chat.turns(messages), chat.tools(tools)
    try:
        text = chat.rendered(turns, offered)
        token_ids = tuple(chat.token_ids(text)[:max_tokens])
        is_whole = objective is Objective.DAPT
        spans = [Span(0, len(token_ids))] if is_whole else list(_learned(chat, turns, offered, text, max_tokens))
    except UnrenderableError:
        return None
    labels = [IGNORED] * len(token_ids)
    for start, end in spans:
        labels[start:end] = token_ids[start:end]
    if all(label == IGNORED for label in labels[1:]):
        return None
    return EncodedExample(token_ids=token_ids, labels=tuple(labels))


def call_spans(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    max_tokens: int,
) -> tuple[tuple[Span, ...], ...]:
    """Return where the tool calls of a conversation are among its token ids: for each turn that calls, its calls.

    A turn with a call beyond `max_tokens`, or one that the chat template does not render as it is, is left out. Where
    the template itself renders calls, all those of a turn are one span: what it adds for them.
    """
    chat = ChatText(tokenizer)
    turns, offered = chat.turns(messages), chat.tools(tools)
    found = _rendered_calls if chat.renders_calls else _spelled_calls
    try:
        text = chat.rendered(turns, offered)
        places = chat.control.places(text, tokenizer)[:max_tokens]
        end = places[-1][1] if places else 0
        calls_of_turns = found(chat, messages, turns, offered, text)
        calls_by_turn = list(takewhile(lambda calls: not calls or calls[0][0] < end, calls_of_turns))
    except UnrenderableError:
        return ()
    spans = ([_tokens_between(places, *place) for place in calls] for calls in calls_by_turn)
    return tuple(tuple(span for span in calls if span) for calls in spans if calls and all(calls))


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


def _spelled_calls(
    chat: ChatText, messages: Turns, turns: Turns, tools: Turns, text: str
) -> Iterator[list[tuple[int, int]]]:
    """Yield where each call of each turn stands in the text, as it was spelled there; (0, 0) where it does not."""
    del turns, tools
    cursor = 0
    for message in messages:
        places = []
        for call in message.get("tool_calls") or ():
            spelled = chat.spelled(call["function"])
            start = text.find(spelled, cursor)
            cursor = max(cursor, start + len(spelled))
            places.append((start, start + len(spelled)) if start >= 0 else (0, 0))
        yield places


def _rendered_calls(
    chat: ChatText, messages: Turns, turns: Turns, tools: Turns, text: str
) -> Iterator[list[tuple[int, int]]]:
    """Yield, for each turn, the place of what the template adds to it for its calls, if it has any."""
    for number, message in enumerate(messages):
        if not message.get("tool_calls"):
            continue
        silent = {name: value for name, value in turns[number].items() if name != "tool_calls"}
        whole, without = (chat.rendered([*turns[:number], turn], tools) for turn in (turns[number], silent))
        start = shared(whole, without)
        end = len(whole) - shared(whole[start:][::-1], without[start:][::-1])
        yield [(start, end) if text.startswith(whole[:end]) else (0, 0)]


def _tokens_between(places: Sequence[tuple[int, int]], start: int, end: int) -> Span | None:
    """Return the tokens that have letters of `text[start:end]`, or None where the last of them is not there."""
    inside = [token for token, (first, last) in enumerate(places) if first < end and last > start]
    return Span(inside[0], inside[-1] + 1) if inside and places[inside[-1]][1] >= end else None


def _learned(chat: ChatText, turns: Turns, tools: Turns, text: str, max_tokens: int) -> Iterator[Span]:
    """Yield the tokens of assistant turns: those that come after the tokens of all that stands before them."""
    for stretch in learned_turns(chat, turns, tools, text):
        start = len(chat.token_ids(text[: stretch.start]))
        if start >= max_tokens:
            return
        yield Span(start, len(chat.token_ids(text[: stretch.end])))
