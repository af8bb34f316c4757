import math
from collections.abc import Callable

import pytest
import torch

from ctrainer.trainer.evaluation import held_out_perplexity
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.tokenization import EncodedExample

Examples = Callable[[int], list[EncodedExample]]


def perplexity_of(model: torch.nn.Module, rows: list[EncodedExample]) -> float:
    total, tokens = 0.0, 0
    for row in rows:
        labels = torch.tensor([row.labels])
        count = int((labels[:, 1:] >= 0).sum())
        total += float(model(input_ids=torch.tensor([row.token_ids]), labels=labels).loss.detach()) * count
        tokens += count
    return math.exp(total / tokens)


def test_perplexity_is_that_of_each_record_alone_with_and_without_the_adapter(
    adapted: LanguageModel, examples: Examples
) -> None:
    rows = examples(7)
    found = held_out_perplexity(model=adapted.model, examples=rows, pad_token_id=0, micro_batch=3)
    assert found is not None
    assert found.adapted == pytest.approx(perplexity_of(adapted.model, rows), rel=1e-5)
    with adapted.model.disable_adapter():
        assert found.base == pytest.approx(perplexity_of(adapted.model, rows), rel=1e-5)
    assert found.base != found.adapted


def test_nothing_held_out_is_nothing_measured(adapted: LanguageModel) -> None:
    assert held_out_perplexity(model=adapted.model, examples=[], pad_token_id=0) is None
