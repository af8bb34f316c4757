"""How alike in meaning two texts are, by the mean of their word embeddings."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from ctrainer.trainer.embedding_files import TOKENIZER, WEIGHTS, packaged_folder


class WordEmbeddings:
    """WordLlama's token embeddings, 256 numbers each."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        (weights,) = load_file(folder / WEIGHTS).values()
        self._weights: NDArray[np.float32] = weights.astype(np.float32)

    @classmethod
    def packaged(cls) -> "WordEmbeddings":
        """Read those of the installed package.

        Raises:
            NoEmbeddingsError: it is not installed.
        """
        return cls(packaged_folder())

    def similarity(self, first: str, second: str) -> float:
        """Return the cosine of the mean embeddings of two texts; 0 where one has no words, or numbers that are none."""
        one, other = self._mean(first), self._mean(second)
        cosine = float(one @ other) / (float(np.linalg.norm(one) * np.linalg.norm(other)) or 1.0)
        return min(1.0, cosine) if math.isfinite(cosine) else 0.0

    def _mean(self, text: str) -> NDArray[np.float32]:
        token_ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not token_ids:
            return np.zeros(self._weights.shape[1], dtype=np.float32)
        mean: NDArray[np.float32] = self._weights[np.minimum(token_ids, len(self._weights) - 1)].mean(axis=0)
        return mean
