"""The layers of the second look's encoder that are not adapted."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer

FROZEN = 8
"""So many layers stay as they are: what they make of a text is computed once."""
MOST_TOKENS = 128
_BATCH_TOKENS = 1_536
_BATCH_TEXTS = 48

States = torch.Tensor
"""What the frozen layers make of a text: shape (tokens, width), in bfloat16."""


class FrozenLayers:
    """The layers of an encoder that are not adapted. What they made of texts is kept in a file, if one is named."""

    def __init__(self, folder: Path, *, file: Path | None = None) -> None:
        self.folder = folder
        self._file = file
        self._kept: dict[str, States] = torch.load(file) if file is not None and file.exists() else {}

    def states(self, texts: Sequence[str]) -> list[States]:
        """Return the states of texts."""
        digests = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32] for text in texts]
        unknown = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in self._kept}
        if unknown:
            self._kept |= dict(zip(unknown, self._computed(list(unknown.values())), strict=True))
            if self._file is not None:
                torch.save(self._kept, self._file)
        return [self._kept[digest] for digest in digests]

    def _computed(self, texts: Sequence[str]) -> list[States]:
        model, tokenizer = encoder_of(self.folder), AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        model.encoder.layer = model.encoder.layer[:FROZEN]
        tokens = tokenizer(list(texts), truncation=True, max_length=MOST_TOKENS)["input_ids"]
        states: list[States] = [torch.empty(0)] * len(texts)
        with torch.inference_mode():
            for rows in packed(sorted(range(len(texts)), key=lambda row: len(tokens[row])), list(map(len, tokens))):
                padded = tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt")
                for row, one in zip(rows, model(**padded).last_hidden_state, strict=True):
                    states[row] = one[: len(tokens[row])].clone()
        return states


def encoder_of(folder: Path) -> Any:
    """Return the encoder of a folder, in bfloat16."""
    return AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.bfloat16).eval()


def packed(rows: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield rows, shortest first, in batches that fit when all their texts are as long as the longest."""
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) == _BATCH_TEXTS or (len(batch) + 1) * lengths[row] > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
