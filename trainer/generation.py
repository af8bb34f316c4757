"""What a language model says to prompts, always the most probable token next."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch

from ctrainer.trainer.chat_text import prompt_tokens

Chat: TypeAlias = Sequence[Mapping[str, str]]
"""Turns with `role` and `content`."""


class Said(NamedTuple):
    """An answer; `is_whole` is false where the most tokens were reached before the model was done."""

    text: str
    is_whole: bool


def generation_type(device: torch.device) -> torch.dtype:
    """Return the type that a model answers fastest in without another mind: bfloat16 where the device computes it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32


@torch.inference_mode()
def greedy_answers(model: Any, tokenizer: Any, chats: Sequence[Chat], *, most_tokens: int) -> list[Said]:
    """Return the greedy answer to each chat, all in one batch: give chats of like length.

    The same chats in the same batch have the same answers on the same machine.
    """
    rows = [prompt_tokens(chat, tokenizer) for chat in chats]
    longest = max(map(len, rows))
    padded = [[tokenizer.pad_token_id] * (longest - len(row)) + row for row in rows]
    seen = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    generated = model.generate(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(seen, device=model.device),
        max_new_tokens=most_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    return [_said(tokenizer, row[longest:], most_tokens) for row in generated]


def _said(tokenizer: Any, tokens: torch.Tensor, most_tokens: int) -> Said:
    """An answer that fills the row is whole only if its last token ends it; a shorter one was ended by the model."""
    is_whole = len(tokens) < most_tokens or int(tokens[-1]) in {tokenizer.eos_token_id, tokenizer.pad_token_id}
    return Said(tokenizer.decode(tokens, skip_special_tokens=True).strip(), is_whole)
