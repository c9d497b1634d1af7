"""Linear layers that read the same input become one: q, k and v, and gate and up.

No model code is changed. The first layer of a group computes the outputs of all and keeps them; the
others hand out their share when they are called with that same input, and compute it themselves
when they are not. On a CPU in fp32 the weights are also laid out once as oneDNN wants them, which
makes products of a few rows, as decoding has them, up to twice as fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
EXPECTED_ROWS = 16  # a hint to oneDNN for the layout; any number of rows can be multiplied


class Weights:
    """The stacked weights of one or more linear layers (outputs, inputs) and their biases."""

    def __init__(self, layers: Sequence[nn.Linear]):
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.sizes = [layer.out_features for layer in layers]
        self.bias = torch.cat([b.detach() for b in biases]) if biases else None
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self.packed = _pack(weight)
        self.plain = None if self.packed is not None else weight

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is None:
            assert self.plain is not None
            return F.linear(x, self.plain, self.bias)
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return out

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """The layers' outputs, views of one tensor."""
        return torch.split(self(x), self.sizes, dim=-1)


class Lead(nn.Module):
    """First layer of a group: multiplies once for all of them."""

    def __init__(self, layers: Sequence[nn.Linear]):
        super().__init__()
        self.weights = Weights(layers)
        self.input: Tensor | None = None
        self.parts: Sequence[Tensor] = ()

    def forward(self, x: Tensor) -> Tensor:
        if len(self.weights.sizes) == 1:
            return self.weights(x)
        self.parts = self.weights.parts(x)
        self.input = x
        return self.parts[0]


class Follower(nn.Module):
    """Another layer of the group. `index` is its place behind the lead's, 1 for the second."""

    def __init__(self, lead: Lead, index: int, num: int):
        super().__init__()
        self._lead = (lead,)  # a tuple, so that it does not become this module's child
        self.index, self.is_last = index, index == num - 1

    def forward(self, x: Tensor) -> Tensor:
        lead = self._lead[0]
        parts = lead.parts
        if lead.input is not x:
            parts = lead.weights.parts(x)
        elif self.is_last:  # nobody asks again: free the memory
            lead.input, lead.parts = None, ()
        return parts[self.index]


def fuse(model: nn.Module) -> int:
    """Replace every such group, and single linear layers where packing pays. Returns how many.

    Only plain `nn.Linear` layers that all have a bias or all have none are touched.
    """
    num = 0
    for module in list(model.modules()):
        for names in GROUPS:
            num += _fuse_group(module, names)
    if _can_pack(next(model.parameters())):
        for module, name in list(_single_layers(model)):
            setattr(module, name, Lead([getattr(module, name)]))
            num += 1
    return num


def _fuse_group(module: nn.Module, names: Sequence[str]) -> bool:
    layers: list[Any] = [getattr(module, name, None) for name in names]
    if any(type(layer) is not nn.Linear for layer in layers):
        return False
    if len({layer.bias is None for layer in layers} | {layer.in_features for layer in layers}) != 2:
        return False
    lead = Lead(layers)
    setattr(module, names[0], lead)
    for index, name in enumerate(names[1:], 1):
        setattr(module, name, Follower(lead, index, len(names)))
    return True


def _single_layers(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Linear:
                yield module, name


def _can_pack(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and bool(torch.backends.mkldnn.enabled)
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def _pack(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's own layout, or None where that is not to be had."""
    if not _can_pack(weight):
        return None
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS)
    return packed
