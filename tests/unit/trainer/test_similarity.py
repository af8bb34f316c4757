import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ctrainer.trainer.embedding_files import TOKENIZER, WEIGHTS, packaged_folder
from ctrainer.trainer.similarity import WordEmbeddings

LATE = "The parcel is late because of the snow."


@pytest.fixture(scope="module")
def embeddings() -> WordEmbeddings:
    return WordEmbeddings.packaged()


def test_the_same_text_is_most_alike(embeddings: WordEmbeddings) -> None:
    assert embeddings.similarity(LATE, LATE) == pytest.approx(1.0)


def test_a_rewording_is_more_alike_than_another_matter(embeddings: WordEmbeddings) -> None:
    reworded = embeddings.similarity(LATE, "Because of snow, your package arrives later.")
    other = embeddings.similarity(LATE, "Whisk the eggs with a little milk.")
    assert reworded > 0.5
    assert other < 0.25


def test_the_order_of_two_texts_does_not_matter(embeddings: WordEmbeddings) -> None:
    assert embeddings.similarity(LATE, "Snow.") == pytest.approx(embeddings.similarity("Snow.", LATE))


@pytest.mark.parametrize("text", ["", "   "])
def test_a_text_without_words_is_like_none(embeddings: WordEmbeddings, text: str) -> None:
    assert embeddings.similarity(text, LATE) < 0.25


def test_any_bytes_of_a_text_have_an_embedding(embeddings: WordEmbeddings) -> None:
    assert -1.0 <= embeddings.similarity("\u0000\U0001f4a9 \u202eabc", LATE) <= 1.0


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30])
def test_embeddings_that_are_no_numbers_call_nothing_alike(tmp_path: Path, number: float) -> None:
    for file in (TOKENIZER, WEIGHTS):
        (tmp_path / file).parent.mkdir(exist_ok=True)
    shutil.copy(packaged_folder() / TOKENIZER, tmp_path / TOKENIZER)
    save_file({"embedding": np.full((4, 8), number, dtype=np.float32)}, tmp_path / WEIGHTS)
    assert WordEmbeddings(tmp_path).similarity(LATE, "Snow.") == 0.0
