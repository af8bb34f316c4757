from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel, BertTokenizerFast

from ctrainer.trainer.sentence_encoder import NoEncoderError, SentenceEncoder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bread", "butter", "and", "more"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def test_each_text_has_a_vector_of_length_one_whatever_stands_beside_it(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    texts = ["bread and butter and more", "bread", ""]
    vectors = encoder.encode(texts, most_tokens=16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * 3, abs=1e-6)
    alone = np.concatenate([encoder.encode([text], most_tokens=16) for text in texts])
    assert vectors == pytest.approx(alone, abs=1e-6)


def test_what_stands_after_the_most_tokens_is_not_read_and_told(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    texts = ["bread and butter", "bread and more"]
    first, second = encoder.encode(texts, most_tokens=4)
    assert first == pytest.approx(second)
    assert encoder.reads_whole([*texts, "bread and"], most_tokens=4) == [False, False, True]
    first, second = encoder.encode(texts, most_tokens=5)
    assert first != pytest.approx(second)
    assert encoder.reads_whole(texts, most_tokens=5) == [True, True]


@pytest.mark.parametrize("token", ["[PAD]", "[MASK]", "[SEP]"])
def test_a_control_token_that_is_spelled_in_a_text_is_text(folder: Path, token: str) -> None:
    encoder = SentenceEncoder.load(folder)
    spelled, other = encoder.encode([f"bread {token} butter", "bread (any) butter"], most_tokens=16)
    assert spelled == pytest.approx(other, abs=1e-6)
    assert encoder.reads_whole([token], most_tokens=4) == [False]


def test_an_adapter_changes_what_the_encoder_sees(folder: Path, tmp_path: Path) -> None:
    adapted = get_peft_model(
        BertModel.from_pretrained(folder), LoraConfig(r=2, target_modules=["query"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path)
    plain, other = SentenceEncoder.load(folder), SentenceEncoder.load(folder, adapter=tmp_path)
    text = ["bread and butter and more"]
    assert plain.encode(text, most_tokens=16) != pytest.approx(other.encode(text, most_tokens=16), abs=1e-4)
    assert plain.digest == other.digest


def test_only_the_weights_that_are_named_are_taken(folder: Path) -> None:
    encoder = SentenceEncoder.load(folder)
    assert SentenceEncoder.load(folder, digest=encoder.digest).digest == encoder.digest
    with pytest.raises(NoEncoderError, match=f"got weights {encoder.digest}, expected 00"):
        SentenceEncoder.load(folder, digest="00")


@pytest.mark.parametrize("there", [(), ("model.safetensors",), ("config.json", "model.safetensors")])
def test_a_folder_without_an_encoder_is_refused(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / name).write_text("{}")
    with pytest.raises(NoEncoderError, match="expected a folder with"):
        SentenceEncoder.load(tmp_path)
