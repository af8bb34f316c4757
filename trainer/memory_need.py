"""How much memory a session needs, from its model's configuration alone: an estimate, on the safe side.

A session that needs more than was thought halves its micro-batches, and its guarantee stays the same; one that needs
less only waited too long.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctrainer.schemas.training import LoraSettings

_FLOAT = 4
_MARGIN = 1.1
_PROCESS = 768 * 1024**2
"""Bytes of the libraries, of the kernels of a GPU, and of the dataset."""

_STATES = 8
"""Floats for each trained number: weight, gradient, two moments, clipped sum, noise in float64, and one to spare."""

_LOGITS = 3
"""Copies of the logits: themselves, their softmax, and its gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes of a decoder, in numbers."""

    layers: int
    hidden: int
    intermediate: int
    queries: int
    keys: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ModelShape | None":
        """Read the `config.json` of a transformers model; None where it says too little to estimate anything."""
        try:
            heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
            head = int(config.get("head_dim") or hidden // heads)
            return cls(
                layers=int(config["num_hidden_layers"]),
                hidden=hidden,
                intermediate=int(config["intermediate_size"]),
                queries=heads * head,
                keys=int(config.get("num_key_value_heads") or heads) * head,
                vocabulary=int(config["vocab_size"]),
                tied=bool(config.get("tie_word_embeddings", False)),
            )
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None

    def widths(self) -> dict[str, tuple[int, int]]:
        """Return the inputs and outputs of each linear layer of a block."""
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.keys),
            "v_proj": (self.hidden, self.keys),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    def parameters(self) -> int:
        """Return about how many weights the model has.

        >>> round(SMOLLM2_135M.parameters() / 1e6)
        134
        """
        block = sum(inputs * outputs for inputs, outputs in self.widths().values())
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + self.layers * block


SMOLLM2_135M = ModelShape(layers=30, hidden=576, intermediate=1536, queries=576, keys=192, vocabulary=49_152, tied=True)


def memory_need(shape: ModelShape, lora: LoraSettings, *, max_tokens: int, micro_batch: int = 6) -> int:
    """Return about how many bytes a session takes at its peak.

    >>> round(memory_need(SMOLLM2_135M, LoraSettings(), max_tokens=128) / 1024**3, 1)
    3.0
    """
    # A target that is no layer of this table counts as the widest: the guess is on the safe side.
    widths = shape.widths()
    widest = max(map(sum, widths.values()))
    sizes = [sum(widths[name]) if name in widths else widest for name in lora.targets]
    trained = shape.layers * lora.rank * sum(sizes)
    tokens = micro_batch * max_tokens
    activations = tokens * shape.layers * (10 * shape.hidden + 4 * shape.intermediate)
    numbers = shape.parameters() + (_STATES + micro_batch) * trained + activations + _LOGITS * tokens * shape.vocabulary
    return int(_MARGIN * _FLOAT * numbers) + _PROCESS
