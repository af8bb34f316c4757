"""What sentence encoders know: of words, the prior of the harm score, and of whole texts, what its teacher sees."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from ctrainer.trainer.sentence_encoder import SentenceEncoder
from scripts.encoder_packages import all_minilm, all_mpnet
from scripts.frozen_layers import FrozenLayers

_MOST_TOKENS = 112
_LONGEST_WORD_TOKENS = 12
_WORD = re.compile("[a-z]{2,20}")

Vectors = NDArray[np.float32]


class Encoders:
    """MiniLM for words and MPNet for texts (all-MiniLM-L6-v2 and all-mpnet-base-v2, Apache-2.0).

    `vocabulary` holds the whole words that MiniLM knows, sorted; `frozen` are MPNet's first layers. What they make of
    texts is kept in the folder `remembered`, if one is named.
    """

    def __init__(self, remembered: Path | None = None) -> None:
        minilm, mpnet = all_minilm(), all_mpnet(remembered)
        words, texts = SentenceEncoder.load(minilm), SentenceEncoder.load(mpnet)
        self.vocabulary = sorted(
            word for word in AutoTokenizer.from_pretrained(minilm).get_vocab() if _WORD.fullmatch(word)
        )
        self.frozen = FrozenLayers(mpnet, file=remembered and remembered / "states.pt")
        self._words = _Remembered(words, _LONGEST_WORD_TOKENS, remembered and remembered / "words.npz")
        self._texts = _Remembered(texts, _MOST_TOKENS, remembered and remembered / "texts.npz")

    def of_words(self, words: Sequence[str]) -> Vectors:
        """Return MiniLM's vector of each word."""
        return self._words.encode(words)

    def of_texts(self, texts: Sequence[str]) -> Vectors:
        """Return MPNet's vector of each text."""
        return self._texts.encode(texts)


class _Remembered:
    """An encoder whose vectors are kept in a file, if one is named, by the digests of their texts."""

    def __init__(self, encoder: SentenceEncoder, most_tokens: int, file: Path | None) -> None:
        self._encoder = encoder
        self._most_tokens = most_tokens
        self._file = file
        self._vectors: dict[str, NDArray[np.float16]] = {}
        if file is not None and file.exists():
            with np.load(file) as kept:
                self._vectors = dict(zip(kept["digests"].tolist(), kept["vectors"], strict=True))

    def encode(self, texts: Sequence[str]) -> Vectors:
        digests = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32] for text in texts]
        unknown = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in self._vectors}
        if unknown:
            fresh = self._encoder.encode(list(unknown.values()), most_tokens=self._most_tokens)
            self._vectors |= dict(zip(unknown, fresh.astype(np.float16), strict=True))
            if self._file is not None:
                np.savez(
                    self._file, digests=np.array(list(self._vectors)), vectors=np.array(list(self._vectors.values()))
                )
        return np.array([self._vectors[digest] for digest in digests], np.float32)
