"""Vectors of texts by a sentence encoder from a local folder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctrainer.schemas.errors import ConstitutionalTrainerError

WEIGHTS = "model.safetensors"
_BATCH = 32


class NoEncoderError(ConstitutionalTrainerError):
    """There is no sentence encoder, or another one than expected."""


class SentenceEncoder:
    """An encoder in the format of transformers: the mean of the last hidden states of a text, length one.

    `digest` is the SHA-256 of its weights file.
    """

    def __init__(self, model: Any, tokenizer: Any, *, digest: str) -> None:
        self.digest = digest
        self._model = model
        self._tokenizer = tokenizer

    @classmethod
    def load(cls, folder: Path, *, digest: str | None = None, adapter: Path | None = None) -> "SentenceEncoder":
        """Load the encoder of a folder, changed by the LoRA adapter of another one; nothing is fetched from anywhere.

        Raises:
            NoEncoderError: there is none, or its weights are not those of `digest`.
        """
        from transformers import AutoModel, AutoTokenizer  # noqa: PLC0415 - seconds; only who asks for it needs it
        from transformers.utils.logging import disable_progress_bar  # noqa: PLC0415 - as above

        disable_progress_bar()
        try:
            found = _digest_of(folder / WEIGHTS)
            if digest not in {None, found}:
                raise NoEncoderError(f"sentence encoder {str(folder)!r}: got weights {found}, expected {digest}")
            model = AutoModel.from_pretrained(folder, local_files_only=True, dtype="float32")
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            expected = f"expected a folder with {WEIGHTS}, config.json and a tokenizer"
            raise NoEncoderError(f"sentence encoder {str(folder)!r}: {type(error).__name__}; {expected}") from error
        if adapter is not None:
            from peft import PeftModel  # noqa: PLC0415 - as above

            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        return cls(model.eval(), tokenizer, digest=found)

    def encode(self, texts: Sequence[str], *, most_tokens: int) -> NDArray[np.float32]:
        """Return a vector for each text, of its first `most_tokens` tokens: shape (texts, width)."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._encoded([texts[row] for row in rows], most_tokens)
        return vectors

    def reads_whole(self, texts: Sequence[str], *, most_tokens: int) -> list[bool]:
        """Return of each text whether all of it is among its first `most_tokens` tokens."""
        tokens = self._tokenizer(list(texts), split_special_tokens=True, verbose=False)["input_ids"]
        return [len(found) <= most_tokens for found in tokens]

    def _encoded(self, texts: Sequence[str], most_tokens: int) -> NDArray[np.float32]:
        import torch  # noqa: PLC0415 - as above

        # A control token that somebody spelled is text: `<pad>` would shift all places behind it.
        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=most_tokens,
            split_special_tokens=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None]
            mean = (states * mask).sum(1) / mask.sum(1)
            vectors: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        return vectors


def _digest_of(weights: Path) -> str:
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
