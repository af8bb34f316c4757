from pathlib import Path

import pytest
import torch

from ctrainer.trainer.errors import UnknownModelError
from ctrainer.trainer.models import DEFAULT_MODEL, knows_model, load_model
from ctrainer.trainer.tiny_model import save_tiny_model


def test_known_are_the_default_model_folders_with_a_model_and_hub_names(tiny_folder: Path) -> None:
    assert knows_model(DEFAULT_MODEL)
    assert knows_model(str(tiny_folder))
    assert knows_model("organisation/model")


@pytest.mark.parametrize("name", ["", "no-such-model", "/no/such/folder", "./no/folder", "~/model", "a/b/c"])
def test_anything_else_is_not_known(name: str) -> None:
    assert not knows_model(name)


def test_a_folder_without_a_model_is_not_known_and_not_loaded(tmp_path: Path) -> None:
    assert not knows_model(str(tmp_path))
    with pytest.raises(UnknownModelError, match=DEFAULT_MODEL):
        load_model(str(tmp_path), cache_folder=tmp_path)


def test_a_tiny_model_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    folders = [save_tiny_model(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    a, b, c = (load_model(str(folder), cache_folder=tmp_path).model.get_input_embeddings().weight for folder in folders)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_the_tiny_tokenizer_reads_any_text_back(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_model(str(tiny_folder), cache_folder=tmp_path).tokenizer
    text = "Grüße, 你好\n\t{} <|im_end|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_model_of_an_unknown_architecture_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "never-heard-of"}')
    with pytest.raises(UnknownModelError, match=str(tmp_path)) as raised:
        load_model(str(tmp_path), cache_folder=tmp_path)
    assert raised.value.reason == "unknown-model"
