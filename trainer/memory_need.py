"""How much memory a session needs, from its model's configuration alone: an estimate, on the safe side.

A session that needs more than was thought halves its micro-batches, and its guarantee stays the same; one that needs
less only waited too long.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.micro_batch import CPU_MICRO_BATCH, MicroBatch
from ctrainer.trainer.models import DEFAULT_MODEL

_FLOAT, _BFLOAT16 = 4, 2
_MARGIN = 1.1
_PROCESS = 900 * 1024**2
"""Bytes of the libraries, of the constitution, and of the dataset; on a GPU, of its context and kernels."""

_STATES = 8
"""Floats for each trained number: weight, gradient, two moments, clipped sum, noise in float64, and one to spare."""

_LOGITS_TRAINED = 3
"""Copies of the logits: themselves, their softmax, and its gradient."""

_EVALUATED_TOKENS = 2_048
_LOGITS_EVALUATED = 3
"""Copies of the logits of the most tokens that `evaluation` predicts at once: as measured."""

_LEAST_TOKENS, _MOST_TOKENS = 8, 1 << 20
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


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
        """Read the `config.json` of a transformers model; None where it says too little to estimate anything.

        Of a mixture of experts it says nothing that this table of layers could hold.
        """
        if any(config.get(name) for name in _EXPERTS):
            return None
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

    def trained(self, lora: LoraSettings) -> int:
        """Return how many numbers an adapter has; a target that is no layer of this table counts as the widest."""
        widths = self.widths()
        widest = max(map(sum, widths.values()))
        return self.layers * lora.rank * sum(sum(widths[name]) if name in widths else widest for name in lora.targets)


SMOLLM2_135M = ModelShape(layers=30, hidden=576, intermediate=1536, queries=576, keys=192, vocabulary=49_152, tied=True)


def shape_of(name_or_path: str) -> ModelShape | None:
    """Return the sizes of a model that lies on this machine; None where it does not, or says too little of itself."""
    if name_or_path == DEFAULT_MODEL:
        return SMOLLM2_135M
    try:
        config = orjson.loads(_config_file(name_or_path).read_bytes())
    except (OSError, ValueError):
        return None
    return ModelShape.of(config) if isinstance(config, Mapping) else None


def _config_file(name_or_path: str) -> Path:
    folder = Path(name_or_path)
    if folder.is_dir():
        return folder / "config.json"
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 - only models of a hub need it

    found = try_to_load_from_cache(name_or_path, "config.json")
    return Path(found) if isinstance(found, str) else folder / "config.json"


def memory_need(
    shape: ModelShape,
    lora: LoraSettings,
    *,
    max_tokens: int,
    micro_batch: MicroBatch = CPU_MICRO_BATCH,
    bfloat16: bool = False,
) -> int:
    """Return about how many bytes the process of a session takes at its peak, from when it trains to its evaluation.

    With `bfloat16` the base model and its activations are in that format, as they are on a GPU.

    >>> round(memory_need(SMOLLM2_135M, LoraSettings(), max_tokens=128) / 1024**3, 1)
    3.2
    """
    short = _BFLOAT16 if bfloat16 else _FLOAT
    training = training_bytes(shape, lora, max_tokens=max_tokens, records=micro_batch.most(max_tokens), short=short)
    evaluating = _FLOAT * _LOGITS_EVALUATED * max(_EVALUATED_TOKENS, max_tokens) * shape.vocabulary
    kept = short * shape.parameters() + _FLOAT * _STATES * shape.trained(lora)
    return int(_MARGIN * (kept + max(training, evaluating) + _PROCESS))


def training_bytes(shape: ModelShape, lora: LoraSettings, *, max_tokens: int, records: int, short: int = _FLOAT) -> int:
    """Return how much one forward and backward pass holds at its peak, beyond the weights.

    `short` is the bytes of a number of the passes; the loss is computed in float32 in any case.
    """
    tokens = records * max_tokens
    activations = tokens * shape.layers * (10 * shape.hidden + 4 * shape.intermediate)
    numbers = records * shape.trained(lora) + activations
    return short * numbers + _FLOAT * _LOGITS_TRAINED * tokens * shape.vocabulary


def most_tokens(
    shape: ModelShape,
    lora: LoraSettings,
    *,
    within: int,
    micro_batch: MicroBatch = CPU_MICRO_BATCH,
    bfloat16: bool = False,
) -> int | None:
    """Return the largest `max_tokens`, of what a request may say, whose session fits; None where none does."""
    fitting = bisect_right(
        range(_LEAST_TOKENS, _MOST_TOKENS),
        within,
        key=lambda tokens: memory_need(shape, lora, max_tokens=tokens, micro_batch=micro_batch, bfloat16=bfloat16),
    )
    return _LEAST_TOKENS + fitting - 1 if fitting else None
