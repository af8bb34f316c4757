"""The throw-away run of an audit: the trainer's own clipping, noise and division, fed with canaries."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ctrainer.trainer.canary_audit import CanaryAudit, epsilon_of_separation, gaussian_epsilon, one_run_epsilon
from ctrainer.trainer.plan import PrivacyPlan
from ctrainer.trainer.private_step import PrivateStep
from ctrainer.trainer.tokenization import EncodedExample

_OVERSIZE = 10.0
"""How much longer than the clip norm a canary's gradient is: a missing clip then shows."""
_UNCLIPPED = 1e9
_CLIP_SHARES = (0.03, 0.1, 0.3, 1.0)


def audit_step(step: PrivateStep, examples: Sequence[EncodedExample], *, most_canaries: int = 2_000) -> CanaryAudit:
    """Audit one release of a private step against the noise its plan promises.

    Canaries are gradients along one weight each, in place of those of records: white-box, and as strong as a record can
    be. `examples` of different lengths show whether one record's loss depends on the others. The coins are drawn from
    the step's own randomness, and its model's gradients are overwritten.

    Raises:
        TypeError: the step is not private.
    """
    plan = step.plan
    if not isinstance(plan, PrivacyPlan):
        raise TypeError("got a step without privacy, expected a private one: there is nothing to audit")
    size = sum(block.size for block in step.gradients.blocks)
    canaries = min(most_canaries, size)
    included = [draw > 0.5 for draw in step.randomness.uniform(canaries).tolist()]  # noqa: PLR2004 - a fair coin
    scores = _scores(step, included)
    return CanaryAudit(
        claimed=epsilon_of_separation(1 / plan.noise_multiplier, delta=plan.delta),
        one_run=one_run_epsilon(scores, included, delta=plan.delta),
        gaussian=gaussian_epsilon(scores, included, delta=plan.delta),
        delta=plan.delta,
        canaries=canaries,
        sensitivity=sensitivity(step, examples),
    )


def sensitivity(step: PrivateStep, examples: Sequence[EncodedExample]) -> float:
    """Return the largest change of the clipped sum when one example is left out, in clip norms.

    Tried at clip norms around the examples' own gradient norms, where an error cannot hide behind the clip.
    """
    typical = sorted(_norm(_signal(step, [example], clip_norm=_UNCLIPPED)) for example in examples)[len(examples) // 2]
    return max(_change(step, examples, clip_norm=share * typical) for share in _CLIP_SHARES)


def _change(step: PrivateStep, examples: Sequence[EncodedExample], *, clip_norm: float) -> float:
    whole = _signal(step, examples, clip_norm=clip_norm)
    others = ([*examples[:place], *examples[place + 1 :]] for place in range(len(examples)))
    return max(_norm(whole - _signal(step, rest, clip_norm=clip_norm)) for rest in others) / clip_norm


def _signal(step: PrivateStep, examples: Sequence[EncodedExample], *, clip_norm: float) -> Tensor:
    plan = step.plan
    step.plan = replace(plan, clip_norm=clip_norm)
    try:
        return torch.cat(step.signal(examples).totals).double()
    finally:
        step.plan = plan


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor))


def _scores(step: PrivateStep, included: Sequence[bool]) -> list[float]:
    """Return what one release says along each canary, in clip norms."""
    _insert(step, [place for place, present in enumerate(included) if present])
    clipped = step.gradients.clipped_sum(step.plan.clip_norm, samples=sum(included))
    step.set_gradient(clipped.totals, step.noise())
    released = torch.empty(sum(block.size for block in step.gradients.blocks))
    released[_order(step)] = torch.cat([gradient.flatten() for gradient in _gradients(step)])
    scores = released[: len(included)] * (step.plan.expected_batch_size / step.plan.clip_norm)
    return [float(score) for score in scores]


def _gradients(step: PrivateStep) -> list[Tensor]:
    return [factor.weight.grad for factor in step.gradients.factors if factor.weight.grad is not None]


def _insert(step: PrivateStep, canaries: Sequence[int]) -> None:
    """Leave a gradient of each canary where a backward pass would leave those of records."""
    first = 0
    for block in step.gradients.blocks:
        block.buffer = torch.zeros(len(canaries), block.size, device=block.device)
        block.written.update(range(len(block.factors)))
        for sample, canary in enumerate(canaries):
            if first <= canary < first + block.size:
                block.buffer[sample, canary - first] = _OVERSIZE * step.plan.clip_norm
        first += block.size


def _order(step: PrivateStep) -> Tensor:
    """Return the place in the flat gradient of each number of the weights, weight by weight."""
    blocks = step.gradients.blocks
    places = torch.split(torch.arange(sum(block.size for block in blocks)), [block.size for block in blocks])
    return torch.cat([block.in_weight_order(part) for block, part in zip(blocks, places, strict=True)])
