"""From a conversation to token ids and labels."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple, TypeAlias

import torch
from jinja2 import TemplateError

from ctrainer.schemas.training import Objective

IGNORED = -100
"""The label of a token that is not learned."""

_Turns: TypeAlias = Sequence[Mapping[str, Any]]
_PROBE = "name_of_a_probe"


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
    turns = _renderable(messages, tokenizer)
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

    A turn with a call beyond `max_tokens`, or one that the chat template does not render as it is, is left out. Where
    the template itself renders calls, all those of a turn are one span: what it adds for them.
    """
    turns = _renderable(messages, tokenizer)
    text = _text(turns, tools, tokenizer)
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][:max_tokens]
    found = _rendered_calls if renders_calls(tokenizer) else _spelled_calls
    spans = ([_tokens_between(places, *place) for place in calls] for calls in found(messages, turns, tools, tokenizer))
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


def _spelled_calls(messages: _Turns, turns: _Turns, tools: _Turns, tokenizer: Any) -> Iterator[list[tuple[int, int]]]:
    """Yield where each call of each turn stands in the text, as it was spelled there; (0, 0) where it does not."""
    text, cursor = _text(turns, tools, tokenizer), 0
    for message in messages:
        places = []
        for call in message.get("tool_calls") or ():
            spelled = _spelled(call["function"])
            start = text.find(spelled, cursor)
            cursor = max(cursor, start + len(spelled))
            places.append((start, start + len(spelled)) if start >= 0 else (0, 0))
        yield places


def _rendered_calls(messages: _Turns, turns: _Turns, tools: _Turns, tokenizer: Any) -> Iterator[list[tuple[int, int]]]:
    """Yield, for each turn, the place of what the template adds to it for its calls, if it has any."""
    text = _text(turns, tools, tokenizer)
    for number, message in enumerate(messages):
        if not message.get("tool_calls"):
            continue
        silent = {name: value for name, value in turns[number].items() if name != "tool_calls"}
        whole, without = (_text([*turns[:number], turn], tools, tokenizer) for turn in (turns[number], silent))
        start = _shared(whole, without)
        end = len(whole) - _shared(whole[start:][::-1], without[start:][::-1])
        yield [(start, end) if text.startswith(whole[:end]) else (0, 0)]


def _shared(one: str, another: str) -> int:
    """Return with how many equal letters two texts begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, another, strict=False)))


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


def renders_calls(tokenizer: Any) -> bool:
    """Return whether the chat template has a form of its own for tool calls."""
    call = {"type": "function", "function": {"name": _PROBE, "arguments": {}}}
    turns: _Turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    try:
        return _PROBE in _text(turns, [], tokenizer)
    except (TemplateError, TypeError):
        return False


def _renderable(messages: Sequence[Mapping[str, Any]], tokenizer: Any) -> list[dict[str, Any]]:
    """Return turns as the chat template can render them: calls stand in the text where it has no form for them."""
    turn = _with_calls if renders_calls(tokenizer) else _with_spelled_calls
    return [turn(message) for message in messages]


def _with_calls(message: Mapping[str, Any]) -> dict[str, Any]:
    turn = {"role": message["role"], "content": message.get("content") or ""}
    calls = [
        {"type": "function", "function": {"name": function["name"], "arguments": json.loads(function["arguments"])}}
        for function in (call["function"] for call in message.get("tool_calls") or ())
    ]
    return {**turn, "tool_calls": calls} if calls else turn


def _with_spelled_calls(message: Mapping[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls") or ()
    spelled = "\n".join(_spelled(call["function"]) for call in calls)
    content = "\n".join(part for part in (message.get("content") or "", spelled) if part)
    return {"role": message["role"], "content": content}


def _spelled(function: Mapping[str, Any]) -> str:
    """Return a call as Hermes-style models write it; `arguments` is JSON text already."""
    return f'<tool_call>{{"name": {json.dumps(function["name"])}, "arguments": {function["arguments"]}}}</tool_call>'
