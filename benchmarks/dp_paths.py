"""One training step on a LoRA model, in several ways: without privacy, ours, and those of Opacus."""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from transformers import LlamaConfig, LlamaForCausalLM

from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.per_sample import PerSampleGradients
from ctrainer.trainer.plan import PrivacyPlan, make_plan
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.tokenization import TokenBatch

Step = Callable[[TokenBatch], None]
CLIP_NORM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A random Llama-like model; `layers`, `width`, `inner` and `vocabulary` as in its configuration."""

    name: str
    layers: int
    width: int
    inner: int
    heads: int
    key_value_heads: int
    vocabulary: int

    def build(self, device: torch.device, *, rank: int = 8) -> Any:
        """Return the model with LoRA on all linear layers, outer factors away from zero."""
        torch.manual_seed(1)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
        )
        base = LlamaForCausalLM(config).eval().to(device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        model = add_adapter(base, LoraSettings(rank=rank, alpha=16))
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.01)
        return model


def a_plan() -> PrivacyPlan:
    """Return a plan with real noise."""
    plan = make_plan(epsilon=8.0, delta=1e-5, records=1_000, expected_batch_size=8.0, steps=40, clip_norm=CLIP_NORM)
    if not isinstance(plan, PrivacyPlan):
        raise TypeError(f"got {plan}, expected a plan")
    return plan


def step_paths(model: Any, computation: Computation, plan: PrivacyPlan) -> dict[str, Step]:
    """Return every way to make a step by name, each on its own adapter over the one frozen base of `model`."""
    kinds = {
        "non_private": _non_private,
        "ours": _ours,
        "opacus_hooks": _hooks,
        "functorch": _functorch,
        "ghost": _ghost,
    }
    return {name: kind(_sharing_the_base(model), computation, plan) for name, kind in kinds.items()}


def _sharing_the_base(model: Any) -> Any:
    frozen = {id(weight): weight for weight in model.parameters() if not weight.requires_grad}
    return copy.deepcopy(model, memo=frozen)


def _optimizer(model: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(_trainable(model), lr=1e-3, weight_decay=0.0, fused=True)


def _trainable(model: Any) -> list[torch.nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _losses(model: Any, batch: TokenBatch, precision: AbstractContextManager[Any]) -> torch.Tensor:
    with precision:
        return sample_losses(model, batch)


def _non_private(model: Any, computation: Computation, _: PrivacyPlan) -> Step:
    optimizer = _optimizer(model)

    def step(batch: TokenBatch) -> None:
        loss = _losses(model, batch, computation.precision(model.device)).mean()
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(model: Any, computation: Computation, plan: PrivacyPlan) -> PrivateStep:
    """Return our step, as the training loop makes it."""
    return PrivateStep(
        model=model,
        gradients=PerSampleGradients.attach(model),
        plan=plan,
        randomness=Randomness.secure(),
        computation=computation,
        pad_token_id=0,
    )


def _ours(model: Any, computation: Computation, plan: PrivacyPlan) -> Step:
    private = our_step(model, computation, plan)
    optimizer = _optimizer(model)
    beside = ThreadPoolExecutor(1, thread_name_prefix="noise")

    def step(batch: TokenBatch) -> None:
        drawing = beside.submit(private.noise)
        signal = private.clipped_sum(batch)
        private.set_gradient(signal.totals, drawing.result())
        optimizer.step()
        optimizer.zero_grad()

    return step


def _hooks(model: Any, computation: Computation, plan: PrivacyPlan, *, functorch: bool = False) -> Step:
    wrapped = GradSampleModule(model, loss_reduction="sum", force_functorch=functorch)
    optimizer = DPOptimizer(_optimizer(model), expected_batch_size=8, loss_reduction="sum", **_mechanism(plan))

    def step(batch: TokenBatch) -> None:
        # The wrapped model itself: hooks sit on its layers.
        torch.autograd.backward(_losses(wrapped, batch, computation.precision(model.device)).sum())
        optimizer.step()
        optimizer.zero_grad()

    return step


def _functorch(model: Any, computation: Computation, plan: PrivacyPlan) -> Step:
    return _hooks(model, computation, plan, functorch=True)


def _ghost(model: Any, computation: Computation, plan: PrivacyPlan) -> Step:
    wrapped = GradSampleModuleFastGradientClipping(
        model, loss_reduction="sum", max_grad_norm=plan.clip_norm, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        _optimizer(model), expected_batch_size=8, loss_reduction="sum", **_mechanism(plan)
    )

    def step(batch: TokenBatch) -> None:
        losses = _losses(wrapped, batch, computation.precision(model.device))
        DPTensorFastGradientClipping(wrapped, optimizer, losses, "sum").backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _mechanism(plan: PrivacyPlan) -> dict[str, float]:
    return {"noise_multiplier": plan.noise_multiplier, "max_grad_norm": plan.clip_norm}


def random_batches(shape: Shape, device: torch.device, *, samples: int, tokens: int) -> Iterator[TokenBatch]:
    """Yield batches of random tokens, all of them learned, without padding."""
    while True:
        token_ids = torch.randint(0, shape.vocabulary, (samples, tokens))
        batch = TokenBatch(token_ids=token_ids, attention_mask=torch.ones_like(token_ids), labels=token_ids)
        yield batch.to(device)
