import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ctrainer.schemas.training import Objective
from ctrainer.trainer.evaluation import Text, measure_prediction
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.tokenization import EncodedExample, Span, call_spans, encode

Examples = Callable[[int], list[EncodedExample]]


def counted(model: torch.nn.Module, rows: list[EncodedExample]) -> tuple[float, float]:
    """Return perplexity and token accuracy, one record at a time."""
    loss, tokens, right = 0.0, 0, 0
    for row in rows:
        labels = torch.tensor([row.labels])
        with torch.no_grad():
            answer = model(input_ids=torch.tensor([row.token_ids]), labels=labels)
        learned = labels[0, 1:] >= 0
        loss += float(answer.loss) * int(learned.sum())
        tokens += int(learned.sum())
        right += int((answer.logits[0, :-1].argmax(-1) == labels[0, 1:])[learned].sum())
    return math.exp(loss / tokens), right / tokens


def test_a_batch_measures_what_each_record_alone_does_with_and_without_the_adapter(
    adapted: LanguageModel, examples: Examples
) -> None:
    rows = examples(7)
    found = measure_prediction(model=adapted.model, texts=[Text(example=row) for row in rows], pad_token_id=0)
    with_adapter = counted(adapted.model, rows)
    with adapted.model.disable_adapter():
        without = counted(adapted.model, rows)
    assert (found.perplexity.adapted, found.token_accuracy.adapted) == pytest.approx(with_adapter, rel=1e-5)
    assert (found.perplexity.base, found.token_accuracy.base) == pytest.approx(without, rel=1e-5)
    assert found.perplexity.base != found.perplexity.adapted
    assert found.texts == 7
    assert found.call_accuracy is None
    assert found.call_token_accuracy is None


def call(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


CALLING: list[dict[str, Any]] = [
    {"role": "user", "content": "where is it?"},
    {"role": "assistant", "content": "one moment", "tool_calls": [call("find", '{"id":1}'), call("ask", "{}")]},
    {"role": "tool", "content": "here"},
    {"role": "assistant", "content": "it is here"},
    {"role": "user", "content": "and that?"},
    {"role": "assistant", "content": "", "tool_calls": [call("find", '{"id":2}')]},
]


def test_the_spans_of_calls_are_exactly_their_tokens(tiny: LanguageModel) -> None:
    example = encode(CALLING, [], tiny.tokenizer, objective=Objective.SFT, max_tokens=2_000)
    assert example is not None
    spelled = [
        [tiny.tokenizer.decode(example.token_ids[span.start : span.end]) for span in spans]
        for spans in call_spans(CALLING, [], tiny.tokenizer, max_tokens=2_000)
    ]
    assert spelled == [
        [
            '<tool_call>{"name": "find", "arguments": {"id":1}}</tool_call>',
            '<tool_call>{"name": "ask", "arguments": {}}</tool_call>',
        ],
        ['<tool_call>{"name": "find", "arguments": {"id":2}}</tool_call>'],
    ]


def test_a_call_that_is_cut_off_is_not_counted(tiny: LanguageModel) -> None:
    whole = call_spans(CALLING, [], tiny.tokenizer, max_tokens=2_000)
    cut = call_spans(CALLING, [], tiny.tokenizer, max_tokens=whole[1][0].end - 1)
    assert cut == whole[:1]


def test_a_turn_counts_as_right_only_with_every_token_of_all_its_calls(adapted: LanguageModel) -> None:
    said = greedy(adapted, "x", 12)
    example = EncodedExample(token_ids=tuple(said), labels=tuple(said))
    start = len(said) - 12
    wrong = EncodedExample(token_ids=(*said[:-1], said[-1] + 1), labels=(*said[:-1], said[-1] + 1))
    calls = ((Span(start, start + 4), Span(start + 6, len(said))),)
    texts = [Text(example=example, calls=calls), Text(example=wrong, calls=calls)]
    found = measure_prediction(model=adapted.model, texts=texts, pad_token_id=0)
    assert found.call_accuracy is not None
    assert found.call_token_accuracy is not None
    assert found.call_accuracy.adapted == 0.5
    # One token of twice ten is wrong: the last one of the second text.
    assert found.call_token_accuracy.adapted == 0.95


def greedy(language_model: LanguageModel, prompt: str, count: int) -> list[int]:
    """Return a prompt with its most probable continuation."""
    token_ids = list(language_model.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    for _ in range(count):
        with torch.no_grad():
            logits = language_model.model(input_ids=torch.tensor([token_ids])).logits
        token_ids.append(int(logits[0, -1].argmax()))
    return token_ids
