"""Counts what a module does by tracing it: the layers it knows are listed here, any other raises."""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from search_spaces.errors import UnknownName

__all__ = ["params_macs_peak"]

_FLOAT_BYTES = 4
_MULTIPLYING = (nn.Conv2d, nn.Linear)
_ALIASES = (nn.Identity, nn.Dropout)  # in inference their result is their input
_ELEMENTWISE = (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.Sigmoid, nn.Hardsigmoid)
_FUNCTIONS: tuple[Callable[..., Any] | str, ...] = (operator.add, operator.mul, operator.getitem, F.avg_pool2d, F.pad, "mean")


def params_macs_peak(module: nn.Module, in_chw: tuple[int, int, int]) -> tuple[int, int, int]:
    """Parameters, MACs and peak activation bytes (as ``nas.cost.Cost`` defines them) of a module fed one (C, H, W) map.

    The module is on the meta device and is left in evaluation mode.

    Raises:
        UnknownName: the module contains a layer or a function that is not in this file's lists.
    """
    traced = fx.symbolic_trace(module.eval())
    ShapeProp(traced).propagate(torch.empty(1, *in_chw, device="meta"))
    nodes = [node for node in traced.graph.nodes if node.op != "output"]
    aliased = {node for node in nodes if _is_alias(node, traced)}
    macs = sum(_macs(node, traced) for node in nodes)
    return sum(p.numel() for p in module.parameters()), macs, _peak_bytes(nodes, aliased)


def _is_alias(node: fx.Node, module: nn.Module) -> bool:
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), _ALIASES)


def _macs(node: fx.Node, module: nn.Module) -> int:
    """Multiply-accumulates of one op; raises for an op it does not know."""
    if node.op == "placeholder":
        return 0
    if node.op == "call_module":
        part = module.get_submodule(str(node.target))
        if isinstance(part, _MULTIPLYING):
            assert isinstance(part.weight, torch.Tensor)
            return part.weight.numel() * math.prod(_shape(node)[2:])
        if isinstance(part, (*_ELEMENTWISE, *_ALIASES)):
            return 0
        known = [kind.__name__ for kind in (*_MULTIPLYING, *_ELEMENTWISE, *_ALIASES)]
        raise UnknownName.among("layer in the cost counter", type(part).__name__, known)
    if node.target not in _FUNCTIONS:
        raise UnknownName.among("function in the cost counter", _name(node.target), map(_name, _FUNCTIONS))
    return 0


def _peak_bytes(nodes: list[fx.Node], aliased: set[fx.Node]) -> int:
    """The largest sum of tensors alive at once; an op's inputs and its result are alive together."""
    owner: dict[fx.Node, fx.Node] = {}
    last_use: dict[fx.Node, int] = {}
    for i, node in enumerate(nodes):
        owner[node] = owner[node.all_input_nodes[0]] if node in aliased else node
        for used in (node, *node.all_input_nodes):
            last_use[owner[used]] = i
    owners = [(i, node) for i, node in enumerate(nodes) if node not in aliased]
    alive = ([math.prod(_shape(n)) for born, n in owners if born <= i <= last_use[n]] for i in range(len(nodes)))
    return _FLOAT_BYTES * max(map(sum, alive))


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape)


def _name(target: object) -> str:
    return str(getattr(target, "__name__", target))
