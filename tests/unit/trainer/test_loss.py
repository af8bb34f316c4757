import math
from collections.abc import Callable

import pytest
import torch

from ctrainer.trainer.loss import mean_losses, sample_losses
from ctrainer.trainer.models import LanguageModel
from ctrainer.trainer.tokenization import IGNORED, EncodedExample, collate


def test_a_loss_is_the_mean_over_the_learned_tokens_of_its_row_only() -> None:
    logits = torch.zeros(2, 3, 4)
    logits[1, 0, 2] = 5.0
    targets = torch.tensor([[1, IGNORED, IGNORED], [2, 3, IGNORED]])
    sure = math.log(math.exp(5) + 3) - 5
    assert mean_losses(logits, targets).tolist() == pytest.approx([math.log(4), (sure + math.log(4)) / 2], rel=1e-5)


def test_the_loss_equals_that_of_transformers_for_each_sample_alone(
    adapted: LanguageModel, examples: Callable[[int], list[EncodedExample]]
) -> None:
    rows = examples(5)
    together = sample_losses(adapted.model, collate(rows, pad_token_id=0)).tolist()
    for row, ours in zip(rows, together, strict=True):
        alone = collate([row], pad_token_id=0)
        theirs = adapted.model(input_ids=alone.token_ids, labels=alone.labels).loss
        assert ours == pytest.approx(float(theirs), rel=1e-5)
