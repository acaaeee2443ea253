"""Augmentation of whole batches of tensors: which pixels to take is worked out for the batch, then gathered once."""

import torch
from torch import Tensor

__all__ = ["cutout", "gather"]


def gather(x: Tensor, index: Tensor, *, crop_pixels: int = 0, flip: bool = False, generator: torch.Generator | None = None) -> Tensor:
    """Images (B, C, H, W) at ``index`` (B,) of ``x`` (N, C, H, W), each shifted and mirrored at random; channels_last in memory.

    A shift moves an image by up to ``crop_pixels`` either way on both axes (never a whole side), and the edge is reflected as
    ``torch.nn.functional.pad(mode="reflect")`` does. ``flip`` mirrors left-right with probability one half. ``x`` should be
    channels_last: its pixels are then copied whole.
    """
    count, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1)
    if not crop_pixels and not flip:
        return pixels.index_select(0, index).permute(0, 3, 1, 2)
    rows = _shifted(height, len(index), crop_pixels, x.device, generator)
    columns = _shifted(width, len(index), crop_pixels, x.device, generator)
    if flip:
        mirrored = torch.rand(len(index), 1, device=x.device, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    # (B, H, W) positions in the flat list of all pixels
    flat = (index.view(-1, 1, 1) * height + rows.unsqueeze(2)) * width + columns.unsqueeze(1)
    taken = pixels.reshape(count * height * width, channels).index_select(0, flat.flatten())
    return taken.view(len(index), height, width, channels).permute(0, 3, 1, 2)


def _shifted(size: int, count: int, most: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Positions (count, size) along one axis, shifted per image, reflected at both ends."""
    most = min(most, size - 1)
    shift = torch.randint(-most, most + 1, (count, 1), device=device, generator=generator)
    moved = (torch.arange(size, device=device) + shift).abs()
    return size - 1 - (size - 1 - moved).abs()


def cutout(x: Tensor, side: int, generator: torch.Generator | None = None) -> Tensor:
    """Normalised images (B, C, H, W) with one square of ``side`` pixels set to 0, its centre anywhere in the image.

    Source: "Improved Regularization of Convolutional Neural Networks with Cutout", section 3.2.
    """
    batch, _, height, width = x.shape
    kept = [_outside(size, batch, side, x.device, generator) for size in (height, width)]
    mask = kept[0].view(batch, 1, height, 1) | kept[1].view(batch, 1, 1, width)
    return x * mask


def _outside(size: int, count: int, side: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    start = torch.randint(0, size, (count, 1), device=device, generator=generator) - side // 2
    place = torch.arange(size, device=device)
    return (place < start) | (place >= start + side)
