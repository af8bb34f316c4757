"""Per-sample gradients are exact on every architecture, with every choice of computation."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from opacus import GradSampleModule
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ctrainer.trainer.computation import Computation
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.per_sample import per_sample_gradients
from ctrainer.trainer.tokenization import IGNORED, EncodedExample, collate

TOLERANCE = 1e-5
CLIP_NORM = 0.01
SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SIZES, "intermediate_size": 48, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
GATED = ["gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Architecture:
    build: Callable[[], Any]
    targets: list[str]
    fan_in_fan_out: bool = False


ARCHITECTURES = {
    "llama": Architecture(
        lambda: LlamaForCausalLM(LlamaConfig(**WIDE, num_key_value_heads=2, tie_word_embeddings=True)),
        ATTENTION + GATED,
    ),
    "llama with biases": Architecture(
        lambda: LlamaForCausalLM(LlamaConfig(**WIDE, attention_bias=True, mlp_bias=True)), ATTENTION + GATED
    ),
    "qwen2": Architecture(
        lambda: Qwen2ForCausalLM(Qwen2Config(**WIDE, num_key_value_heads=2)), [*ATTENTION, *GATED, "lm_head"]
    ),
    "gpt2": Architecture(
        lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2)
        ),
        ["c_attn", "c_proj", "c_fc"],
        fan_in_fan_out=True,
    ),
    "gpt-neox": Architecture(
        lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**WIDE)),
        ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    ),
    "phi3": Architecture(
        lambda: Phi3ForCausalLM(Phi3Config(**WIDE, num_key_value_heads=2)),
        ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    ),
    "gemma2": Architecture(
        lambda: Gemma2ForCausalLM(Gemma2Config(**WIDE, num_key_value_heads=2, head_dim=8)), ATTENTION + GATED
    ),
}


def build(name: str, rank: int = 3) -> Any:
    architecture = ARCHITECTURES[name]
    config = LoraConfig(
        r=rank,
        lora_alpha=5,
        target_modules=architecture.targets,
        fan_in_fan_out=architecture.fan_in_fan_out,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = get_peft_model(architecture.build().eval(), config)
        for parameter_name, parameter in model.named_parameters():
            if ".lora_B." in parameter_name:
                torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def rows() -> list[EncodedExample]:
    generator = torch.Generator().manual_seed(6)
    lengths = (9, 4, 13, 7)
    tokens = [torch.randint(3, 61, (length,), generator=generator).tolist() for length in lengths]
    return [EncodedExample(token_ids=tuple(ids), labels=(IGNORED, IGNORED, *ids[2:])) for ids in tokens]


def backward(model: Any, rows: Sequence[EncodedExample], computation: Computation) -> None:
    with computation.precision(torch.device("cpu")):
        losses = sample_losses(model, collate(rows, pad_token_id=0))
    torch.autograd.backward(losses.sum())


def one_by_one(model: Any, rows: Sequence[EncodedExample], computation: Computation | None = None) -> dict[str, Tensor]:
    """Return the gradients that plain autograd finds for each row alone, in float32 unless told otherwise."""
    found: dict[str, list[Tensor]] = {}
    for row in rows:
        backward(model, [row], computation or Computation())
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                found.setdefault(name, []).append(parameter.grad)
        model.zero_grad(set_to_none=True)
    return {name: torch.stack(parts) for name, parts in found.items()}


def together(model: Any, rows: Sequence[EncodedExample], computation: Computation) -> dict[str, Tensor]:
    with per_sample_gradients(model) as gradients:
        computation.prepare(model)
        backward(model, rows, computation)
        parts = gradients.per_weight([block.in_weight_order(block.take()) for block in gradients.blocks])
        return {factor.name: part for factor, part in zip(gradients.factors, parts, strict=True)}


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest relative distance over weights and samples."""
    assert found.keys() == expected.keys()
    return max(
        float((ours.float() - theirs.float()).norm() / theirs.float().norm())
        for name in expected
        for ours, theirs in zip(found[name], expected[name], strict=True)
    )


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_equal_those_of_single_backward_passes(
    name: str, rows: list[EncodedExample], *, gradient_checkpointing: bool
) -> None:
    expected = one_by_one(build(name), rows)
    found = together(build(name), rows, Computation(gradient_checkpointing=gradient_checkpointing))
    assert worst(found, expected) <= TOLERANCE


@pytest.mark.parametrize("rank", [1, 8, 32])
def test_gradients_are_exact_at_any_rank(rows: list[EncodedExample], rank: int) -> None:
    assert (
        worst(together(build("llama", rank), rows, Computation()), one_by_one(build("llama", rank), rows)) <= TOLERANCE
    )


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name != "gpt2"])
def test_gradients_equal_those_of_opacus(name: str, rows: list[EncodedExample]) -> None:
    model = build(name)
    wrapped = GradSampleModule(model, loss_reduction="sum")
    backward(wrapped, rows, Computation())
    expected = {
        parameter_name.removeprefix("_module."): parameter.grad_sample
        for parameter_name, parameter in wrapped.named_parameters()
        if parameter.requires_grad
    }
    assert worst(together(build(name), rows, Computation()), expected) <= TOLERANCE


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_layers_compute_what_they_computed_before(name: str, rows: list[EncodedExample]) -> None:
    model = build(name)
    batch = collate(rows, pad_token_id=0)
    expected = model(input_ids=batch.token_ids, attention_mask=batch.attention_mask).logits
    with per_sample_gradients(model):
        found = model(input_ids=batch.token_ids, attention_mask=batch.attention_mask).logits
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_under_autocast_gradients_are_as_close_as_those_of_plain_autograd(
    name: str, rows: list[EncodedExample]
) -> None:
    exact = one_by_one(build(name), rows)
    short = Computation(bfloat16=True)
    theirs = one_by_one(build(name), rows, short)
    ours = together(build(name), rows, short)
    assert all(part.dtype is torch.bfloat16 for part in ours.values())
    assert distance(ours, exact) <= 1.25 * distance(theirs, exact) < 0.1


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the relative distance over everything."""
    squares = sum(float((found[name].float() - expected[name]).square().sum()) for name in expected)
    return math.sqrt(squares / sum(float(part.square().sum()) for part in expected.values()))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("computation", [Computation(), Computation(bfloat16=True, gradient_checkpointing=True)])
def test_leaving_out_any_record_moves_the_sum_by_at_most_the_clip_norm(
    rows: list[EncodedExample], name: str, computation: Computation
) -> None:
    model = build(name)
    computation.prepare(model)
    whole = clipped(model, rows, computation)
    for left_out in range(len(rows)):
        rest = clipped(model, rows[:left_out] + rows[left_out + 1 :], computation)
        assert float((whole - rest).norm()) <= CLIP_NORM * (1 + TOLERANCE)


def test_a_record_counts_with_the_clip_norm_under_autocast_as_well(rows: list[EncodedExample]) -> None:
    model = build("llama")
    for row in rows:
        total = clipped(model, [row], Computation(bfloat16=True))
        assert total.dtype is torch.float32
        assert float(total.norm()) == pytest.approx(CLIP_NORM, rel=TOLERANCE)


def clipped(model: Any, rows: Sequence[EncodedExample], computation: Computation) -> Tensor:
    with per_sample_gradients(model) as gradients:
        backward(model, rows, computation)
        return torch.cat(gradients.clipped_sum(CLIP_NORM, samples=len(rows)).totals)


def test_gradient_checkpointing_computes_every_layer_twice(rows: list[EncodedExample]) -> None:
    def calls(computation: Computation) -> int:
        model, found = build("llama"), []
        model.base_model.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: found.append(1))
        together(model, rows, computation)
        return len(found)

    assert (calls(Computation()), calls(Computation(gradient_checkpointing=True))) == (1, 2)


def test_a_base_model_in_bfloat16_with_an_adapter_in_float32_is_covered(rows: list[EncodedExample]) -> None:
    model = build("llama")
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.bfloat16()
    exact = one_by_one(build("llama"), rows)
    found = together(model, rows, Computation())
    assert all(part.dtype is torch.float32 for part in found.values())
    assert distance(found, exact) < 0.1


def test_dropout_of_the_base_model_stays_off_under_gradient_checkpointing(rows: list[EncodedExample]) -> None:
    model = build("gpt2")
    assert model.config.resid_pdrop > 0
    model.eval()
    Computation(gradient_checkpointing=True).prepare(model)
    assert not any(module.training for module in model.modules() if isinstance(module, torch.nn.Dropout))
    batch = collate(rows, pad_token_id=0)
    assert torch.equal(sample_losses(model, batch), sample_losses(model, batch))
