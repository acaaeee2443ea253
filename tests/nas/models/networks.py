"""Architectures and weights that several suites share: every single setting of a block, and networks whose logits are of order 1."""

from itertools import product

import numpy as np
import torch
from torch import nn

from nas.models import Network, build
from search_spaces.architecture import Architecture, Block, Head, Tap


def single(op: str = "mbconv", *, input_chw: tuple[int, int, int] = (3, 13, 11), in_ch: int = 6, **settings: object) -> Architecture:
    """A stem of ``in_ch`` channels, one block with these settings, a head."""
    settings = {"out_ch": 6, "hidden_ch": 12 if op == "mbconv" else 0} | settings
    stem = Block(op="conv", in_ch=input_chw[0], out_ch=in_ch)
    block = Block(op=op, in_ch=in_ch, **settings)  # type: ignore[arg-type]  # settings come from menus
    return Architecture(input_chw=input_chw, blocks=(stem, block), head=Head(outputs=5))


def menu() -> dict[str, Architecture]:
    """Architectures that between them have every op with every act, SE gate, skip, kernel, stride and dilation, in 2-D and 1-D."""
    found = {}
    for op, act in product(("conv", "sepconv", "mbconv"), ("relu", "relu6", "hswish", "swish", "none")):
        found[f"{op}-{act}"] = single(op, act=act)
    for op, gate, act in product(("conv", "sepconv", "mbconv"), ("sigmoid", "hsigmoid"), ("relu", "hswish")):
        found[f"{op}-se-{gate}-{act}"] = single(op, se_ch=3, se_gate=gate, act=act, skip="identity")
    for op, kernel, stride, dilation in product(("conv", "sepconv", "mbconv"), (1, 3, 5, 7), (1, 2), (1, 2)):
        found[f"{op}-k{kernel}-s{stride}-d{dilation}"] = single(op, kernel=kernel, stride=stride, dilation=dilation)
    for op, out_ch, stride in product(("conv", "sepconv", "mbconv"), (4, 6, 9), (1, 2)):
        found[f"{op}-pool-{out_ch}-s{stride}"] = single(op, out_ch=out_ch, stride=stride, skip="pool")
    for op, stride, skip in product(("conv", "sepconv", "mbconv"), (1, 2), ("none", "pool")):
        found[f"{op}-1d-s{stride}-{skip}"] = single(op, input_chw=(2, 1, 37), kernel=5, stride=stride, skip=skip, se_ch=2, out_ch=8)
    found["map-shrunk-to-one"] = single("mbconv", input_chw=(3, 1 + 1, 1), kernel=5, stride=2, skip="pool", se_ch=2)
    found["head-hidden"] = Architecture(
        input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=8),), head=Head(outputs=4, width_ch=16, act="hswish"),
        taps=(Tap(block=0),),
    )
    return found


def images(chw: tuple[int, int, int], *, count: int = 4, seed: int = 1) -> torch.Tensor:
    """Standard normal images (count, C, H, W)."""
    return torch.randn(count, *chw, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def randomise(module: nn.Module, chw: tuple[int, int, int], *, seed: int = 0) -> None:
    """Random weights and BN statistics, different in every channel, that leave logits of order 1; evaluation mode.

    Variance-preserving weights. Each BN in running order gets the statistics of what reaches it on random images, its mean
    moved by 0.1 deviations and its variance scaled by 0.5 to 1.5, so that nothing cancels and nothing builds up; the floor
    under the variances is for channels that are dead on these few images. BN biases around 1 keep most units of a ReLU
    open: half-closed ones make a deep random network chaotic (each BN and ReLU multiplies a rounding error by 1.2), and
    after 60 layers float32 torch itself is 3e-4 from float64.
    """
    g = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5, generator=g)
            if part.bias is not None:
                part.bias.normal_(0, 0.1, generator=g)

    def settle(norm: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        var, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        var = (var + 0.1 * var.mean()) * torch.empty_like(var).uniform_(0.5, 1.5, generator=g)
        mean = mean + 0.1 * var.sqrt() * torch.empty_like(var).normal_(generator=g)
        scale, bias = torch.empty_like(var).uniform_(0.5, 1.5, generator=g), torch.empty_like(var).normal_(1.0, 0.5, generator=g)
        norm.load_state_dict({"running_var": var, "running_mean": mean, "weight": scale, "bias": bias}, strict=False)

    hooks = [part.register_forward_pre_hook(settle) for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    module.eval()(images(chw, count=4))
    for hook in hooks:
        hook.remove()


def network(arch: Architecture, *, seed: int = 0) -> Network:
    """A built network with random weights and statistics whose logits were checked to be of order 1."""
    module = build(arch)
    randomise(module, arch.input_chw, seed=seed)
    assert_order_one(logits(module, images(arch.input_chw)))
    return module


@torch.no_grad()
def logits(module: nn.Module, x: torch.Tensor) -> np.ndarray:
    """The module's result as an array."""
    result: np.ndarray = module(x).numpy()
    return result


def assert_order_one(values: np.ndarray) -> None:
    """Logits too small or too alike would make any two graphs agree."""
    assert np.isfinite(values).all()
    assert 0.1 < values.std() < 10, values.std()


def worst(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference relative to the largest value of ``a``."""
    return float(np.abs(a - b).max() / np.abs(a).max())
