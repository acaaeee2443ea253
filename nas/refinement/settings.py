"""Every knob of a refinement that a search has not, once; the data, the recipe, the device and the workers are a ``RunConfig``'s."""

import math
from pathlib import Path
from typing import Literal

import msgspec

from nas.errors import InvalidConfig
from nas.refinement.places import Kind

__all__ = ["USUAL_KINDS", "Choice", "KeepRule", "Refinement", "held_out_count", "refined_folder"]

Choice = Literal["ratio", "accuracy"]
KeepRule = Literal["l2", "taylor"]
USUAL_KINDS: tuple[Kind, ...] = ("expansion", "bottleneck")
HELD_OUT_SHARE, HELD_OUT_MOST = 0.2, 5000


class Refinement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From a seed to a target; together with a ``RunConfig`` it fixes what is proposed, on one device.

    ``choose``: by the ``ratio`` (accuracy - accuracy of the network left as it is) / (ms saved), MobileNetV3's rule, or by
    ``accuracy`` alone, NetAdapt's. ``keep`` says by which rule channels stay.
    """

    seed_id: str  # the seed's architecture
    origin: str  # where it comes from, for people
    target_ms: float | None = None
    target_ratio: float | None = None  # of the seed's measured latency
    passing: tuple[float, ...] = ()  # targets on the way, in ms or as ratios like the last: the path's network at each is trained in full
    delta: float = 0.01  # least that a step saves, of the seed's latency (MobileNetV3)
    delta_decay: float = 1.0  # each step's delta of that before; below 1 is NetAdapt's schedule
    steps: int = 100  # T: optimizer steps of each proposal's fine-tuning
    kinds: tuple[Kind, ...] = USUAL_KINDS
    keep: KeepRule = "l2"
    choose: Choice = "ratio"
    held_out: int | None = None  # training images to score on; None: a fifth, at most 5,000
    tune_lr: float = 0.1  # learning rate of fine-tuning, of the recipe's
    members: int = 3  # networks of the path that are trained from scratch beside scaled ones, the last always; without ``passing``
    search: int = 0  # networks that a search for the last one's latency trains, to be compared with
    search_in: str = ""  # the space of that search; "": that of the seed's own places

    def __post_init__(self) -> None:
        for rule, holds in self._rules().items():
            if not holds:
                raise InvalidConfig(rule)

    def _rules(self) -> dict[str, bool]:
        ratio, ms = self.target_ratio, self.target_ms
        return {
            "a refinement needs one of --target-ms and --target-ratio": (ratio is None) != (ms is None),
            f"--target-ratio must lie between 0 and 1, got {ratio}": ratio is None or 0 < ratio < 1,
            f"--target-ms must be a positive number, got {ms}": ms is None or 0 < ms < math.inf,
            f"--delta must lie between 0 and 1, got {self.delta}": 0 < self.delta < 1,
            f"--delta-decay must be above 0 and at most 1, got {self.delta_decay}": 0 < self.delta_decay <= 1,
            f"--steps must be at least 1, got {self.steps}": self.steps >= 1,
            "--kinds must name at least one kind, and each once": bool(self.kinds) and len(set(self.kinds)) == len(self.kinds),
            f"--held-out must be at least 2 images, got {self.held_out}": self.held_out is None or self.held_out >= 2,
            f"--tune-lr must be above 0 and at most 1, got {self.tune_lr}": 0 < self.tune_lr <= 1,
            f"--members must be at least 1, got {self.members}": self.members >= 1,
            f"targets on the way must lie above the last one, got {self.passing}": all(p > (ratio or ms or 0.0) for p in self.passing),
            f"each --target-ratio must lie below 1, got {self.passing}": ratio is None or all(p < 1 for p in self.passing),
            f"--search must not be negative, got {self.search}": self.search >= 0,
        }


def refined_folder(run: Path, settings: Refinement) -> Path:
    """Where a refinement of a run's network is kept, unless another folder is named."""
    target = f"{settings.target_ms:g}ms" if settings.target_ms else f"{settings.target_ratio:g}x"
    return run / "refined" / f"{settings.seed_id}-{target}"


def held_out_count(asked: int | None, images: int, classes: int) -> int:
    """How many of the training images are kept to score proposals on.

    Raises:
        InvalidConfig: more than half of them, or fewer than there are classes.
    """
    count = asked if asked is not None else max(min(round(HELD_OUT_SHARE * images), HELD_OUT_MOST), classes)
    if not classes <= count <= images // 2:
        raise InvalidConfig(
            f"--held-out must be {classes} (one image of each class) to {images // 2} (half of the training images), got {count}"
        )
    return count
