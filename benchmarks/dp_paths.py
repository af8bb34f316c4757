"""One training step on a LoRA model, in several ways: without privacy, ours, and those of Opacus."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from transformers import LlamaConfig, LlamaForCausalLM

from ctrainer.schemas.privacy import PrivacyMode
from ctrainer.schemas.training import LoraSettings
from ctrainer.trainer.adapter import add_adapter
from ctrainer.trainer.batches import one_each
from ctrainer.trainer.computation import Computation
from ctrainer.trainer.live_proof import LiveProof
from ctrainer.trainer.loss import sample_losses
from ctrainer.trainer.noise_thread import NoiseThread, noise_thread
from ctrainer.trainer.per_sample import PerSampleGradients
from ctrainer.trainer.plan import PrivacyPlan, make_plan
from ctrainer.trainer.plan_watch import PlanWatch
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.randomness import Randomness
from ctrainer.trainer.ranks import OneRank
from ctrainer.trainer.tokenization import EncodedExample, TokenBatch, collate
from ctrainer.trainer.watched_step import WatchedStep

Step = Callable[[], None]
CLIP_NORM = 1.0
_STEPS = 40
_PADDING = 0


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
        base = self.random_weights(torch.bfloat16 if device.type == "cuda" else torch.float32)
        model = add_adapter(base.to(device), LoraSettings(rank=rank, alpha=16))
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(parameter, std=0.01)
        return model

    def random_weights(self, number_format: torch.dtype) -> Any:
        """Return the model without an adapter."""
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
        return LlamaForCausalLM(config).eval().to(number_format)


LARGE = Shape(name="Llama-1B-like", layers=22, width=2048, inner=5632, heads=32, key_value_heads=4, vocabulary=32_000)


def a_plan(samples: int) -> PrivacyPlan:
    """Return a plan with real noise for a single pass in batches of `samples`."""
    plan = make_plan(
        epsilon=8.0,
        delta=1e-5,
        records=_STEPS * samples,
        expected_batch_size=samples,
        steps=_STEPS,
        clip_norm=CLIP_NORM,
        mode=PrivacyMode.SINGLE_PASS,
    )
    if not isinstance(plan, PrivacyPlan):
        raise TypeError(f"got {plan}, expected a plan")
    return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What all ways of making a step share: records of equal length, `samples` of them in each step, in order."""

    computation: Computation
    plan: PrivacyPlan
    rows: Sequence[EncodedExample]
    samples: int

    def of(self, step: int) -> list[int]:
        """Return the records of a step, by index: never one that another step had."""
        return list(range(step * self.samples, (step + 1) * self.samples))

    def batches(self, device: torch.device) -> Iterator[TokenBatch]:
        """Yield the batch of each step, collated when it is asked for."""
        for step in count():
            yield collate([self.rows[index] for index in self.of(step)], pad_token_id=_PADDING).to(device)


def step_paths(model: Any, work: Work, stack: ExitStack) -> dict[str, Callable[[], Step]]:
    """Return by name what makes each way to take the next step, on an adapter of its own over `model`'s frozen base."""
    copy_of = partial(_sharing_the_base, model)
    return {
        "non_private": lambda: _non_private(copy_of(), work),
        "ours": lambda: _ours(our_step(copy_of(), work, stack.enter_context(noise_thread(model.device)))),
        "opacus_hooks": lambda: _hooks(copy_of(), work),
        "functorch": lambda: _hooks(copy_of(), work, functorch=True),
        "ghost": lambda: _ghost(copy_of(), work),
    }


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


def _non_private(model: Any, work: Work) -> Step:
    optimizer, batches = _optimizer(model), work.batches(model.device)

    def step() -> None:
        loss = _losses(model, next(batches), work.computation.precision(model.device)).mean()
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_step(model: Any, work: Work, thread: NoiseThread) -> WatchedStep:
    """Return our step exactly as the training loop makes it, its watch included."""
    gradients = PerSampleGradients.attach(model)
    private = PrivateStep(
        model=model,
        gradients=gradients,
        plan=work.plan,
        randomness=Randomness.secure(),
        computation=work.computation,
        pad_token_id=_PADDING,
    )
    return WatchedStep(
        examples=work.rows,
        units=one_each(len(work.rows)),
        batches=work,
        step=private,
        optimizer=_optimizer(model),
        proof=LiveProof(factors=gradients.factors),
        watch=PlanWatch(plan=work.plan, records=len(work.rows)),
        ranks=OneRank(),
        noise_thread=thread,
    )


def _ours(watched: WatchedStep) -> Step:
    numbers = count()

    def step() -> None:
        watched.run(next(numbers))

    return step


def _hooks(model: Any, work: Work, *, functorch: bool = False) -> Step:
    wrapped = GradSampleModule(model, loss_reduction="sum", force_functorch=functorch)
    optimizer = DPOptimizer(
        _optimizer(model), expected_batch_size=work.samples, loss_reduction="sum", **_mechanism(work.plan)
    )
    batches = work.batches(model.device)

    def step() -> None:
        # The wrapped model itself: hooks sit on its layers.
        losses = _losses(wrapped, next(batches), work.computation.precision(model.device))
        torch.autograd.backward(losses.sum())
        optimizer.step()
        optimizer.zero_grad()

    return step


def _ghost(model: Any, work: Work) -> Step:
    wrapped = GradSampleModuleFastGradientClipping(
        model, loss_reduction="sum", max_grad_norm=work.plan.clip_norm, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        _optimizer(model), expected_batch_size=work.samples, loss_reduction="sum", **_mechanism(work.plan)
    )
    batches = work.batches(model.device)

    def step() -> None:
        losses = _losses(wrapped, next(batches), work.computation.precision(model.device))
        DPTensorFastGradientClipping(wrapped, optimizer, losses, "sum").backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _mechanism(plan: PrivacyPlan) -> dict[str, float]:
    return {"noise_multiplier": plan.noise_multiplier, "max_grad_norm": plan.clip_norm}


def random_rows(shape: Shape, *, records: int, tokens: int) -> list[EncodedExample]:
    """Return records of random tokens, all of them learned."""
    rows = torch.randint(0, shape.vocabulary, (records, tokens)).tolist()
    return [EncodedExample(token_ids=tuple(row), labels=tuple(row)) for row in rows]
