"""What a base model answers to prompts: kept in files, since it is the same in every session."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import torch
import transformers

from ctrainer.schemas.identity import content_digest
from ctrainer.trainer.durability import write_durably

Answers = Callable[[Sequence[str]], list[str]]
"""Answers prompts, in their order."""

_LARGEST_DIGESTED_BYTES = 2 * 1024**3
"""Of base weights: to hash more would take longer than to answer again, on the GPU that such a model needs."""

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class KnownAnswers:
    """Answers that are asked for once, and then remembered: in `file`, where there is one.

    The file is only a saving: one that cannot be read or written changes no answer.
    """

    answer: Answers
    file: Path | None = None
    _known: dict[str, str] | None = field(default=None, init=False)

    def __call__(self, prompts: Sequence[str]) -> list[str]:
        """Return the answer to each prompt."""
        known = self._read() if self._known is None else self._known
        unknown = [prompt for prompt in prompts if prompt not in known]
        if unknown:
            known |= zip(unknown, self.answer(unknown), strict=True)
            self._write(known)
        self._known = known
        return [known[prompt] for prompt in prompts]

    def _read(self) -> dict[str, str]:
        if self.file is None:
            return {}
        try:
            found = orjson.loads(self.file.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return {}
        return found if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()) else {}

    def _write(self, known: dict[str, str]) -> None:
        if self.file is None:
            return
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Another session may write the same file: each writes it whole, under a name of its own first.
            partial = self.file.with_name(f".{self.file.name}-{content_digest(orjson.dumps(known))[-16:]}")
            write_durably(partial, orjson.dumps(known))
            partial.rename(self.file)


def answers_file(place: Path, model: Any, tokenizer: Any, *, tokens: int) -> Path | None:
    """Return the file for the answers of at most `tokens` tokens of a peft model's base; None for a very large one.

    Its name covers all that an answer depends on: weights, chat template, library versions and kind of device.
    """
    weights = [(name, weight) for name, weight in sorted(model.named_parameters()) if "lora_" not in name]
    if sum(weight.numel() * weight.element_size() for _, weight in weights) > _LARGEST_DIGESTED_BYTES:
        return None
    digest = hashlib.sha256()
    for name, weight in weights:
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
    versions = f"{torch.__version__} {transformers.__version__} {model.device.type} {tokens}"
    digest.update(f"{template}\n{versions}".encode())
    return place / f"{digest.hexdigest()[:32]}.json"
