"""What is learned of a record, on the tokenizer and the chat template of the default model."""

from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from ctrainer.schemas.training import Objective
from ctrainer.trainer.length_buckets import length_buckets
from ctrainer.trainer.micro_batch import MicroBatch
from ctrainer.trainer.models import packaged_gguf
from ctrainer.trainer.tokenization import IGNORED, EncodedExample, call_spans, collate, encode

TOOLS = [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}]
CALL = '<tool_call>{"name": "pay", "arguments": {"amount": 3, "to": "Ada"}}</tool_call>'
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello there"},
    {"role": "assistant", "content": "Hi, what can I do?"},
    {"role": "user", "content": "Pay 3 to Ada"},
    {
        "role": "assistant",
        "content": "One moment.",
        "tool_calls": [{"function": {"name": "pay", "arguments": '{"amount": 3, "to": "Ada"}'}}],
    },
    {"role": "tool", "content": '{"paid": true}'},
    {"role": "assistant", "content": "Done: 3 for Ada."},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    gguf = packaged_gguf()
    assert gguf is not None
    return AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def encoded(tokenizer: Any, chat: list[dict[str, Any]], objective: Objective = Objective.SFT) -> EncodedExample:
    example = encode(chat, TOOLS, tokenizer, objective=objective, max_tokens=2_000)
    assert example is not None
    return example


def learned(tokenizer: Any, example: EncodedExample) -> str:
    return str(tokenizer.decode([label for label in example.labels if label != IGNORED]))


def test_all_assistant_turns_are_learned_with_their_end_markers_and_nothing_else(tokenizer: Any) -> None:
    turns = ["Hi, what can I do?", f"One moment.\n{CALL}", "Done: 3 for Ada."]
    assert learned(tokenizer, encoded(tokenizer, CHAT)) == "".join(f"{turn}<|im_end|>\n" for turn in turns)


def test_tool_calls_and_their_answers_stand_in_the_turns_of_the_chat_template(tokenizer: Any) -> None:
    text = tokenizer.decode(encoded(tokenizer, CHAT).token_ids)
    assert f"<|im_start|>assistant\nOne moment.\n{CALL}<|im_end|>\n" in text
    assert '<|im_start|>tool\n{"paid": true}<|im_end|>\n' in text
    assert text.count("<|im_start|>") == len(CHAT)
    (spans,) = call_spans(CHAT, TOOLS, tokenizer, max_tokens=2_000)
    assert [tokenizer.decode(encoded(tokenizer, CHAT).token_ids[span.start : span.end]).strip() for span in spans] == [
        CALL
    ]


def test_domain_adaptation_learns_every_token_of_the_completed_text(tokenizer: Any) -> None:
    example = encoded(tokenizer, CHAT, Objective.DAPT)
    assert example.labels == example.token_ids == encoded(tokenizer, CHAT).token_ids
    text = tokenizer.decode(example.token_ids)
    assert all(turn["content"] in text for turn in CHAT)


def test_a_row_holds_one_record_and_its_padding_is_neither_seen_nor_learned(tokenizer: Any) -> None:
    records = [encoded(tokenizer, CHAT[:3]), encoded(tokenizer, CHAT), encoded(tokenizer, CHAT[:5])]
    batch = collate(records, pad_token_id=tokenizer.pad_token_id or 0)
    for row, record in enumerate(records):
        length = len(record.token_ids)
        assert batch.token_ids[row, :length].tolist() == list(record.token_ids)
        assert batch.attention_mask[row].tolist() == [1] * length + [0] * (batch.token_ids.shape[1] - length)
        assert bool((batch.labels[row, length:] == IGNORED).all())
    assert len(batch.token_ids) == len(records)


def test_records_of_like_length_share_a_pass(tokenizer: Any) -> None:
    lengths = [len(encoded(tokenizer, CHAT[:count]).token_ids) for count in (3, 7, 3, 5, 7, 3)]
    buckets = length_buckets(lengths, most=MicroBatch(3), pass_tokens=10_000)
    assert sorted(index for bucket in buckets for index in bucket) == list(range(6))
    assert [sorted(lengths[index] for index in bucket) for bucket in buckets] == [
        sorted(lengths)[:3],
        sorted(lengths)[3:],
    ]
    padded = sum(max(lengths[index] for index in bucket) * len(bucket) for bucket in buckets)
    assert padded < max(lengths) * len(lengths) == int(torch.tensor(lengths).max()) * 6
