from pathlib import Path

import pytest
import torch
from peft import PeftModel

from ctrainer.trainer.adapter import folder_digest
from ctrainer.trainer.adapter_store import store_adapter
from ctrainer.trainer.models import LanguageModel, load_model


def test_a_stored_adapter_is_loaded_by_plain_peft(adapted: LanguageModel, tiny_folder: Path, tmp_path: Path) -> None:
    stored = store_adapter(adapted.model, tmp_path / "adapters" / "one")
    assert stored.digest == folder_digest(stored.folder)
    tokens = torch.tensor([[1, 2, 3, 4]])
    loaded = PeftModel.from_pretrained(load_model(str(tiny_folder), cache_folder=tmp_path).model, stored.folder)
    assert torch.equal(loaded(tokens).logits, adapted.model(tokens).logits)


def test_another_adapter_leaves_the_first_as_it_was(adapted: LanguageModel, tmp_path: Path) -> None:
    first = store_adapter(adapted.model, tmp_path)
    next(weight for weight in adapted.model.parameters() if weight.requires_grad).data.add_(1.0)
    second = store_adapter(adapted.model, tmp_path)
    assert first.folder != second.folder
    assert folder_digest(first.folder) == first.digest
    assert folder_digest(second.folder) == second.digest


def test_the_same_adapter_is_stored_once(adapted: LanguageModel, tmp_path: Path) -> None:
    first = store_adapter(adapted.model, tmp_path)
    made = (first.folder / "adapter_model.safetensors").stat().st_ino
    assert store_adapter(adapted.model, tmp_path) == first
    assert (first.folder / "adapter_model.safetensors").stat().st_ino == made
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


def test_a_harmed_folder_is_replaced_by_a_whole_one(adapted: LanguageModel, tmp_path: Path) -> None:
    first = store_adapter(adapted.model, tmp_path)
    (first.folder / "adapter_model.safetensors").unlink()
    assert store_adapter(adapted.model, tmp_path) == first
    assert folder_digest(first.folder) == first.digest


def test_what_was_left_unfinished_is_never_an_adapter_and_goes(
    adapted: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The process ends here."""

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", kill)
        with pytest.raises(Killed):
            store_adapter(adapted.model, tmp_path)
    assert all(path.name.startswith(".partial-") for path in tmp_path.iterdir())
    stored = store_adapter(adapted.model, tmp_path)
    assert list(tmp_path.iterdir()) == [stored.folder]
