"""A small vision transformer (Dosovitskiy et al.: An Image is Worth 16x16 Words, ICLR 2021) for small images, by torchvision's blocks."""

import torch
from torch import nn

from search_spaces.errors import InvalidArchitecture

__all__ = ["vit_tiny"]

LAYERS, HEADS, WIDTH, MLP_WIDTH = 6, 3, 192, 768  # DeiT-Tiny's width and heads, half its depth
SIDE, MOST_TOKENS = 8, 1024


def vit_tiny(*, outputs: int, in_ch: int = 3, input_hw: tuple[int, int] = (32, 32), generator: torch.Generator | None = None) -> nn.Module:
    """6 layers at width 192 over 8×8 patches or little more (4×4 pixels at 32×32): 2.7 million parameters; torchvision's initialisation.

    Raises:
        InvalidArchitecture: images that are not square, or that only patches too small divide: more than 1,024 of them.
    """
    from torchvision.models import VisionTransformer

    patch = _patch_of(input_hw)
    seed = int(torch.randint(2**31, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = VisionTransformer(
            image_size=input_hw[0], patch_size=patch, num_layers=LAYERS, num_heads=HEADS, hidden_dim=WIDTH, mlp_dim=MLP_WIDTH,
            num_classes=outputs,
        )  # fmt: skip
        if in_ch != 3:
            embed = nn.Conv2d(in_ch, WIDTH, patch, patch)
            nn.init.trunc_normal_(embed.weight, std=(in_ch * patch**2) ** -0.5)
            nn.init.zeros_(embed.bias)  # type: ignore[arg-type]  # this convolution has one
            network.conv_proj = embed
    return network


def _patch_of(input_hw: tuple[int, int]) -> int:
    """The side in pixels of the largest patches that leave 8 or more along each side of the image."""
    size, width = input_hw
    if size != width:
        raise InvalidArchitecture(f"vit_tiny takes square images, got {size}x{width}")
    patch = max((p for p in range(1, size + 1) if size % p == 0 and size // p >= SIDE), default=1)
    tokens = (size // patch) ** 2
    if tokens > MOST_TOKENS:
        raise InvalidArchitecture(f"vit_tiny would cut {size}x{size} pixels into {tokens} patches; take --image-size {size // SIDE * SIDE}")
    return patch
