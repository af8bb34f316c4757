"""Adapts the encoder of the second look to tell harm: low-rank changes (LoRA) of the last layers of MPNet."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from transformers import get_linear_schedule_with_warmup

from scripts.frozen_layers import FROZEN, FrozenLayers, States, encoder_of, packed
from scripts.harm_corpus import LIGHT_WEIGHT, OWN, SHORT_WEIGHT, Example

_RANK = 8
_TARGETS = r"encoder\.layer\.(8|9|10|11)\.(attention\.attn\.[qkvo]|intermediate\.dense|output\.dense)"
_DROPOUT = 0.1
_LEARNING_RATE = 5e-4
_DIRECTION_LEARNING_RATE = 2e-3
_WEIGHT_DECAY = 0.01
_EPOCHS = 2
_WARM_UP = 0.06
_LARGEST_NORM = 1.0
_SCALE = 12.0
"""Vectors have length one: the direction learns faster on longer ones."""
_POOL = 512
"""Texts of one batch come from so many shuffled ones, sorted by length."""
_BATCH_WEIGHT = 24.0
_MOST_OWN = {0.3: 3_200, 0.12: 900, SHORT_WEIGHT: 0, LIGHT_WEIGHT: 0}
"""Of our own phrases of a weight, so many are learnt from: they differ little from each other. Of code and of turns of
a few words none: the encoder knows them without."""
_MASKED = -1e4
_BASE = "sentence-transformers/all-mpnet-base-v2"


@dataclass(frozen=True, slots=True)
class Adapted:
    """A trained adapter: its `weights` by name in float16, and the `direction` of harm in adapted vectors."""

    config: LoraConfig
    weights: dict[str, torch.Tensor]
    direction: NDArray[np.float32]

    def write(self, folder: Path) -> str:
        """Write the adapter in the format of peft, and return the SHA-256 of its weights."""
        weights = save(self.weights)
        self.config.save_pretrained(str(folder))
        (folder / "adapter_model.safetensors").write_bytes(weights)
        return hashlib.sha256(weights).hexdigest()


def learnt_from(examples: Sequence[Example]) -> list[Example]:
    """Return what an adapter is trained on: every example that has weight, and some of our own phrases."""
    chance = random.Random(17)
    own = [example for example in examples if example.source == OWN]
    kept = [example for example in examples if example.source != OWN and example.weight]
    for weight in sorted({example.weight for example in own}):
        of = [example for example in own if example.weight == weight]
        kept += chance.sample(of, min(len(of), _MOST_OWN.get(weight, len(of))))
    return kept


def fit_adapter(frozen: FrozenLayers, examples: Sequence[Example]) -> Adapted:
    """Train an adapter on examples, by their weights."""
    torch.manual_seed(0)
    config = LoraConfig(r=_RANK, lora_alpha=2 * _RANK, lora_dropout=_DROPOUT, target_modules=_TARGETS)
    model = get_peft_model(encoder_of(frozen.folder), config)
    direction = torch.nn.Linear(model.config.hidden_size, 1)
    torch.nn.init.zeros_(direction.weight)
    torch.nn.init.zeros_(direction.bias)
    states = frozen.states([example.text for example in examples])
    truth = torch.tensor([float(example.harmful) for example in examples])
    weights = torch.tensor([example.weight for example in examples])
    batches = list(_batches(list(map(len, states))))
    optimizer = _optimizer(model, direction)
    schedule = get_linear_schedule_with_warmup(optimizer, int(_WARM_UP * len(batches)), len(batches))
    model.train()
    for rows in batches:
        vectors = _SCALE * _vectors(model.base_model.model, [states[row] for row in rows])
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            direction(vectors)[:, 0], truth[rows], weights[rows], reduction="sum"
        )
        optimizer.zero_grad()
        torch.autograd.backward(losses / _BATCH_WEIGHT)
        torch.nn.utils.clip_grad_norm_(model.parameters(), _LARGEST_NORM)
        optimizer.step()
        schedule.step()
    found = {name: one.to(torch.float16).contiguous() for name, one in get_peft_model_state_dict(model).items()}
    config.base_model_name_or_path, config.inference_mode = _BASE, True
    return Adapted(config, found, (_SCALE * direction.weight[0].detach()).numpy())


def _optimizer(model: Any, direction: torch.nn.Linear) -> torch.optim.Optimizer:
    adapter = [one for one in model.parameters() if one.requires_grad]
    groups = [
        {"params": adapter, "lr": _LEARNING_RATE},
        {"params": direction.parameters(), "lr": _DIRECTION_LEARNING_RATE},
    ]
    return torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the rows of each batch of all epochs, shuffled; texts of a batch are of about one length."""
    chance = np.random.default_rng(0)
    for _ in range(_EPOCHS):
        rows = chance.permutation(len(lengths))
        batches = [
            batch
            for start in range(0, len(rows), _POOL)
            for batch in packed(sorted(rows[start : start + _POOL].tolist(), key=lengths.__getitem__), lengths)
        ]
        yield from (batches[number] for number in chance.permutation(len(batches)))


def _vectors(model: Any, states: Sequence[States]) -> torch.Tensor:
    """Return what the last layers make of states: vectors of length one, shape (texts, width)."""
    hidden = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    there = torch.nn.utils.rnn.pad_sequence([torch.ones(len(one)) for one in states], batch_first=True)
    masked = ((1 - there) * _MASKED)[:, None, None, :].to(hidden.dtype)
    bias = model.encoder.compute_position_bias(hidden)
    for layer in model.encoder.layer[FROZEN:]:
        (hidden, *_) = layer(hidden, attention_mask=masked, position_bias=bias)
    sums = (hidden.float() * there[..., None]).sum(1)
    return torch.nn.functional.normalize(sums, dim=-1)
