"""Task: data, head, loss and score in one frozen value."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from nas.errors import UnknownName
from nas.tasks.dataset import Images
from search_spaces.architecture import Head, Shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Loss", "Split", "SplitName", "Task"]

SplitName = Literal["train", "valid", "test"]


class Loss(Protocol):
    """Mean loss of logits (N, K) against labels (N,), a scalar tensor."""

    def __call__(self, logits: Tensor, y: Tensor, *, label_smoothing: float = 0.0) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """Images (N, C, H, W), uint8 or float32 and channels_last in memory, not yet normalised; labels (N,), int64."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """What a network is asked to learn, and how it is judged.

    ``mean`` and ``std`` per channel are in units of 0..1 for uint8 images, else in the images' own. ``data_sha256`` covers
    what a search sees: training and validation arrays. ``notes`` are sentences for the user (a fallback, a subset).
    ``flip`` is the data set's advice whether a mirrored image keeps its class.
    """

    name: str
    data: str
    classes: tuple[str, ...]
    input_chw: Shape
    head: Head
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocess: str
    flip: bool
    notes: tuple[str, ...]
    data_sha256: str
    train: Images
    valid: Images
    test: Callable[[], Images]
    loss: Loss
    score: Callable[[Tensor, Tensor], float]
    higher_is_better: bool = True

    @property
    def size(self) -> str:
        """Of its images, in words: "32 px" where they are square, else height and width, "1x128 px"."""
        _, height, width = self.input_chw
        return f"{height} px" if height == width else f"{height}x{width} px"

    def load(self, split: SplitName) -> Split:
        """The split's tensors on the CPU, in a fixed order; they share memory with the task, so do not write to them.

        Test pixels are read (decoded, unpacked) here and only when ``split`` is "test".
        """
        import torch

        parts: Mapping[str, Callable[[], Images]] = {"train": lambda: self.train, "valid": lambda: self.valid, "test": self.test}
        if split not in parts:
            raise UnknownName.among("split", split, parts)
        images = parts[split]()
        with warnings.catch_warnings():
            # a task that came through shared memory holds read-only arrays, and nobody writes to them
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return Split(x=torch.from_numpy(images.x).permute(0, 3, 1, 2), y=torch.from_numpy(images.y))

    def normaliser(self, device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
        """A function from raw images (N, C, H, W), uint8 or float, to what networks are fed: float32 (x - mean) / std."""
        import torch

        mean = torch.tensor(self.mean, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32, device=device).view(1, -1, 1, 1)

        def normalise(x: Tensor) -> Tensor:
            unit = 255.0 if x.dtype == torch.uint8 else 1.0
            return torch.addcmul(-mean / std, x.to(torch.float32), 1 / (unit * std))

        return normalise
