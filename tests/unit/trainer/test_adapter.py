from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.adapter import add_adapter, folder_digest, save_adapter
from ctrainer.trainer.errors import UnsupportedAdapterError
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.models import LanguageModel, load_model
from ctrainer.trainer.per_sample import per_sample_gradients
from ctrainer.trainer.tokenization import EncodedExample, collate

Examples = Callable[[int], list[EncodedExample]]


def test_a_saved_adapter_is_loaded_by_plain_peft(adapted: LanguageModel, tiny_folder: Path, tmp_path: Path) -> None:
    tokens = torch.tensor([[1, 2, 3, 4]])
    digest = save_adapter(adapted.model, tmp_path / "adapter")
    fresh = load_model(str(tiny_folder), cache_folder=tmp_path).model
    loaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    assert torch.equal(loaded(tokens).logits, adapted.model(tokens).logits)
    assert digest == folder_digest(tmp_path / "adapter")


def trained(model: Any, examples: Examples) -> None:
    """Make one plain step under per-sample gradients."""
    with per_sample_gradients(model) as gradients:
        torch.autograd.backward(sample_losses(model, collate(examples(3), pad_token_id=0)).sum())
        sums = gradients.per_weight(gradients.clipped_sum(1.0, samples=3).totals)
        for factor, total in zip(gradients.factors, sums, strict=True):
            factor.weight.data.sub_(total, alpha=0.1)


def test_generation_while_attached_is_that_of_plain_peft(adapted: LanguageModel, examples: Examples) -> None:
    trained(adapted.model, examples)
    tokens = torch.tensor([[1, 2, 3, 4]])
    plain = adapted.model.generate(input_ids=tokens, max_new_tokens=8, do_sample=False)
    with per_sample_gradients(adapted.model):
        attached = adapted.model.generate(input_ids=tokens, max_new_tokens=8, do_sample=False)
    assert torch.equal(attached, plain)


def test_the_base_model_without_the_adapter_is_as_before_while_attached(adapted: LanguageModel) -> None:
    tokens = torch.tensor([[1, 2, 3, 4]])
    with adapted.model.disable_adapter():
        expected = adapted.model(tokens).logits
    with per_sample_gradients(adapted.model), adapted.model.disable_adapter():
        assert torch.equal(adapted.model(tokens).logits, expected)


@pytest.mark.parametrize("attached", [False, True])
def test_a_trained_adapter_merges_into_its_base_model(
    adapted: LanguageModel, examples: Examples, *, attached: bool
) -> None:
    trained(adapted.model, examples)
    tokens = torch.tensor([[1, 2, 3, 4]])
    expected = adapted.model(tokens).logits
    with per_sample_gradients(adapted.model) if attached else nullcontext():
        adapted.model.merge_adapter()
        assert torch.allclose(adapted.model(tokens).logits, expected, atol=1e-5)
        adapted.model.unmerge_adapter()
        assert torch.allclose(adapted.model(tokens).logits, expected, atol=1e-5)
    merged = adapted.model.merge_and_unload()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert torch.allclose(merged(tokens).logits, expected, atol=1e-5)


def test_an_adapter_saved_while_attached_is_the_same(
    adapted: LanguageModel, examples: Examples, tmp_path: Path
) -> None:
    trained(adapted.model, examples)
    plain = save_adapter(adapted.model, tmp_path / "plain")
    with per_sample_gradients(adapted.model):
        assert save_adapter(adapted.model, tmp_path / "attached") == plain


def test_only_the_factors_of_the_adapter_are_trainable(tiny: LanguageModel) -> None:
    model = add_adapter(tiny.model, LoraSettings(rank=2, alpha=4, targets=("q_proj", "down_proj")))
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * 2 * 2
    assert all(".lora_A." in name or ".lora_B." in name for name in trainable)


def test_targets_that_the_model_does_not_have_are_refused(tiny: LanguageModel) -> None:
    with pytest.raises(UnsupportedAdapterError, match="no_such_layer"):
        add_adapter(tiny.model, LoraSettings(targets=("no_such_layer",)))


def test_the_digest_covers_names_and_contents(tmp_path: Path) -> None:
    digests = set()
    for number, (name, content) in enumerate([("a", b"1"), ("b", b"1"), ("a", b"2")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(content)
        digests.add(folder_digest(folder))
    assert len(digests) == 3
