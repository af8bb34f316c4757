"""Which adapters have per-sample gradients: plain LoRA on linear layers. Everything else is refused, not ignored."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ctrainer.trainer.errors import UnsupportedAdapterError


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraLayer:
    """A peft LoRA layer over a frozen linear one, and the name of its only adapter."""

    name: str
    module: Any
    adapter: str
    transposed: bool

    @property
    def inner(self) -> nn.Parameter:
        """Factor A, [rank, in]."""
        return self.module.lora_A[self.adapter].weight  # type: ignore[no-any-return]

    @property
    def outer(self) -> nn.Parameter:
        """Factor B, [out, rank]."""
        return self.module.lora_B[self.adapter].weight  # type: ignore[no-any-return]

    @property
    def base(self) -> Tensor:
        """The frozen weight, [out, in]."""
        weight: Tensor = self.module.base_layer.weight
        return weight.t() if self.transposed else weight


def covered_layers(model: nn.Module) -> list[LoraLayer]:
    """Return the LoRA layers of a peft model, which together hold all that is trainable.

    Raises:
        UnsupportedAdapterError: something trainable is not a factor of plain LoRA over a frozen linear layer, samples
            of a batch meet each other in a batch normalisation, or a hook would be passed over.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415 - seconds; only sessions need it

    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - the only common name of its kinds
            raise UnsupportedAdapterError(f"{name}: batch normalisation mixes the samples of a batch")
        if isinstance(module, BaseTunerLayer):
            layers.append(_covered(name, module))
    for layer in layers:
        for fault in _faults(layer, uses):
            raise UnsupportedAdapterError(f"{layer.name}: {fault}")
    _refuse_what_is_left(model, layers)
    return layers


def _covered(name: str, module: Any) -> LoraLayer:
    from peft.tuners.lora.layer import Linear  # noqa: PLC0415 - seconds; only sessions need it
    from transformers.pytorch_utils import Conv1D  # noqa: PLC0415 - as above

    base = module.get_base_layer()
    kinds = f"{type(module).__module__}.{type(module).__name__} over {type(base).__name__}"
    if type(module) is not Linear or type(base) not in {nn.Linear, Conv1D} or base is not module.base_layer:
        raise UnsupportedAdapterError(f"{name}: got {kinds}, not covered; expected LoRA over a linear layer")
    adapters = list(module.lora_A)
    if len(adapters) != 1 or module.active_adapters != adapters:
        raise UnsupportedAdapterError(f"{name}: got adapters {adapters}, expected exactly one, and active")
    return LoraLayer(name=name, module=module, adapter=adapters[0], transposed=type(base) is Conv1D)


def _faults(layer: LoraLayer, uses: Counter[int]) -> Iterator[str]:
    """Yield what makes a layer something else than plain LoRA."""
    module, adapter = layer.module, layer.adapter
    if adapter in module.lora_variant:
        yield f"{type(module.lora_variant[adapter]).__name__} is not covered; expected plain LoRA, without DoRA"
    if module.lora_bias[adapter]:
        yield "a LoRA factor with a bias is not covered; expected lora_bias=False"
    if not isinstance(module.lora_dropout[adapter], nn.Identity):
        yield "LoRA dropout is not covered; expected lora_dropout=0"
    if module.merged:
        yield "the adapter is merged into its base layer; unmerge it first"
    if not (layer.inner.requires_grad and layer.outer.requires_grad):
        yield "a factor is frozen; expected both to train"
    if any(uses[id(weight)] > 1 for weight in (layer.inner, layer.outer, module.base_layer.weight)):
        yield "its weight is tied to another layer's, which is not covered"
    if "forward" in vars(module):
        yield "per-sample gradients are attached already"
    if any(_hooked(part) for part in (module.base_layer, module.lora_A[adapter], module.lora_B[adapter])):
        yield "a hook or a replaced forward on its parts would be passed over"


def _hooked(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)  # noqa: SLF001 - torch has no other way to ask
    return any(hooks) or "forward" in vars(module)


def _refuse_what_is_left(model: nn.Module, layers: list[LoraLayer]) -> None:
    covered = {id(weight) for layer in layers for weight in (layer.inner, layer.outer)}
    left = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and id(parameter) not in covered
    ]
    if left or not layers:
        raise UnsupportedAdapterError(f"trainable but not covered: {', '.join(left[:5]) or 'nothing trainable'}")
