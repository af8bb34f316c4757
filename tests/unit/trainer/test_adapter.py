from pathlib import Path

import pytest
import torch
from peft import PeftModel

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.adapter import add_adapter, folder_digest, save_adapter
from ctrainer.trainer.errors import UnsupportedAdapterError
from ctrainer.trainer.models import LanguageModel, load_model


def test_a_saved_adapter_is_loaded_by_plain_peft(adapted: LanguageModel, tiny_folder: Path, tmp_path: Path) -> None:
    tokens = torch.tensor([[1, 2, 3, 4]])
    digest = save_adapter(adapted.model, tmp_path / "adapter")
    fresh = load_model(str(tiny_folder), cache_folder=tmp_path).model
    loaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    assert torch.equal(loaded(tokens).logits, adapted.model(tokens).logits)
    assert digest == folder_digest(tmp_path / "adapter")


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
