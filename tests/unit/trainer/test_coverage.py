"""What has no per-sample gradients is refused with a sentence that says what to do."""

from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from ctrainer.trainer.coverage import covered_layers
from ctrainer.trainer.errors import UnsupportedAdapterError
from ctrainer.trainer.per_sample import per_sample_gradients

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def llama(*, tied: bool = False) -> Any:
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).eval()


def adapted(model: Any | None = None, **settings: Any) -> Any:
    config = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings}
    return get_peft_model(model or llama(), LoraConfig(**config))


def test_plain_lora_is_covered() -> None:
    (layer,) = covered_layers(adapted())
    assert (layer.inner.shape, layer.outer.shape, layer.base.shape) == ((2, 32), (32, 2), (32, 32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"use_dora": True}, "DoRA|Dora", id="DoRA"),
        pytest.param({"bias": "lora_only"}, "trainable but not covered: .*bias", id="trainable biases"),
        pytest.param({"bias": "all"}, "trainable but not covered: .*bias", id="all biases"),
        pytest.param({"lora_bias": True}, "lora_bias=False", id="biased factors"),
        pytest.param({"lora_dropout": 0.1}, "lora_dropout=0", id="dropout"),
        pytest.param({"modules_to_save": ["lm_head"]}, "lm_head", id="modules to save"),
        pytest.param({"modules_to_save": ["embed_tokens"]}, "embed_tokens", id="saved embeddings"),
        pytest.param({"target_modules": ["embed_tokens"]}, "Embedding.*not covered", id="embeddings"),
        pytest.param({"target_parameters": ["mlp.up_proj.weight"]}, "not covered", id="parameters"),
        pytest.param({"trainable_token_indices": [1, 2]}, "embed_tokens.*not covered", id="single tokens"),
    ],
)
def test_what_is_more_than_plain_lora_is_refused(settings: dict[str, Any], message: str) -> None:
    base = LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True)).eval()
    with pytest.raises(UnsupportedAdapterError, match=message):
        covered_layers(adapted(base, **settings))


def test_a_layer_whose_weight_is_tied_is_refused() -> None:
    with pytest.raises(UnsupportedAdapterError, match="tied"):
        covered_layers(adapted(llama(tied=True), target_modules=["lm_head"]))


def test_factors_tied_between_layers_are_refused() -> None:
    model = adapted(target_modules=["q_proj", "o_proj"])
    first, second = (module for module in model.modules() if hasattr(module, "lora_A"))
    second.lora_A["default"].weight = first.lora_A["default"].weight
    with pytest.raises(UnsupportedAdapterError, match="tied"):
        covered_layers(model)


def test_other_methods_than_lora_are_refused() -> None:
    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    with pytest.raises(UnsupportedAdapterError, match="expected LoRA"):
        covered_layers(get_peft_model(llama(), config))


def test_lora_on_an_unknown_kind_of_layer_is_refused() -> None:
    class OtherLinear(nn.Linear):
        """A layer that could compute anything."""

    base = llama()
    base.model.layers[0].self_attn.q_proj = OtherLinear(32, 32)
    with pytest.raises(UnsupportedAdapterError, match="OtherLinear"):
        covered_layers(adapted(base))


def test_a_full_weight_that_trains_is_refused() -> None:
    model = adapted()
    model.base_model.model.model.norm.weight.requires_grad_(requires_grad=True)
    with pytest.raises(UnsupportedAdapterError, match=r"trainable but not covered: .*norm"):
        covered_layers(model)


def test_a_frozen_factor_is_refused() -> None:
    model = adapted()
    next(module for module in model.modules() if hasattr(module, "lora_A")).lora_A.requires_grad_(requires_grad=False)
    with pytest.raises(UnsupportedAdapterError, match="frozen"):
        covered_layers(model)


def test_a_second_adapter_is_refused() -> None:
    model = adapted()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(UnsupportedAdapterError, match="exactly one"):
        covered_layers(model)


def test_a_merged_adapter_is_refused() -> None:
    model = adapted()
    model.merge_adapter()
    with pytest.raises(UnsupportedAdapterError, match="unmerge"):
        covered_layers(model)


def test_a_model_without_an_adapter_is_refused() -> None:
    with pytest.raises(UnsupportedAdapterError, match="not covered"):
        covered_layers(llama())
    with pytest.raises(UnsupportedAdapterError, match="nothing trainable"):
        covered_layers(llama().requires_grad_(requires_grad=False))


def test_batch_normalisation_is_refused() -> None:
    model = adapted()
    model.base_model.model.model.norm = nn.BatchNorm1d(32).requires_grad_(requires_grad=False)
    with pytest.raises(UnsupportedAdapterError, match="mixes the samples"):
        covered_layers(model)


def test_a_hook_that_would_be_passed_over_is_refused() -> None:
    model = adapted()
    layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
    layer.base_layer.register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedAdapterError, match="hook"):
        covered_layers(model)


def test_a_model_that_is_attached_already_is_refused() -> None:
    model = adapted()
    with per_sample_gradients(model), pytest.raises(UnsupportedAdapterError, match="attached already"):
        covered_layers(model)


def test_inputs_without_samples_and_tokens_are_refused() -> None:
    model = adapted()
    layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
    with per_sample_gradients(model), pytest.raises(UnsupportedAdapterError, match="2 dimensions"):
        torch.autograd.backward(layer(torch.randn(3, 32)).sum())


def test_experts_that_see_tokens_of_several_samples_are_refused() -> None:
    base = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=2, num_experts_per_tok=1)).eval()
    settings = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj"]}
    with pytest.raises(UnsupportedAdapterError, match="ParamWrapper"):
        covered_layers(adapted(base, **settings))


def test_a_weight_used_twice_adds_up() -> None:
    model = adapted()
    layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
    inputs = torch.randn(3, 5, 32)

    def outer_gradients(uses: int) -> torch.Tensor:
        with per_sample_gradients(model) as gradients:
            torch.autograd.backward(sum(layer(inputs) for _ in range(uses)).sum())
            return gradients.per_weight([block.in_weight_order(block.take()) for block in gradients.blocks])[1]

    assert torch.allclose(outer_gradients(2), 2 * outer_gradients(1), rtol=1e-5)


def test_an_unused_layer_is_refused() -> None:
    model = adapted(target_modules=["q_proj", "k_proj"])
    layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
    with per_sample_gradients(model) as gradients:
        torch.autograd.backward(layer(torch.randn(2, 3, 32)).sum())
        with pytest.raises(UnsupportedAdapterError, match=r"k_proj.*did not use"):
            gradients.clipped_sum(1.0, samples=2)
