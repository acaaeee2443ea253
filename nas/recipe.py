"""Recipe: every knob of one training run, with its unit and its default, once; BankPlan: those of shared weights beside it."""

from typing import Literal

import msgspec

from nas.errors import InvalidConfig

__all__ = ["BankPlan", "Recipe"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one network is trained; together with a seed and a task it fixes the result on one device.

    ``lr`` is reached after ``warmup_epochs`` (linear, per step), then falls to 0 along a cosine. ``weight_decay`` spares
    norms and biases (every parameter with fewer than two dimensions). ``ema_decay`` ramps up as (1 + step) / (10 + step), so that short
    runs are not held back; 0 leaves the plain weights. ``crop_pixels`` shifts each image by up to so many pixels either
    way, its edges reflected; ``cutout_pixels`` blanks a square of that side (0: neither). ``flip`` "auto" mirrors
    left-right where the data set says that a mirrored image keeps its class. ``dropout`` is a property of the network:
    it goes to ``build``, and ``fit`` itself does not read it. ``clip_norm`` 0 clips nothing. ``amp`` "auto" trains in bf16
    where the hardware gains from it: on CUDA with bf16, on no CPU.
    """

    epochs: int = 3
    batch: int = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup_epochs: float = 0.5
    label_smoothing: float = 0.1
    ema_decay: float = 0.99
    crop_pixels: int = 4
    flip: bool | Literal["auto"] = "auto"
    cutout_pixels: int = 0
    dropout: float = 0.0
    clip_norm: float = 5.0
    amp: Literal["auto", "off", "bf16"] = "auto"

    def __post_init__(self) -> None:
        for rule, holds in self._rules().items():
            if not holds:
                field = rule.split()[0]
                raise InvalidConfig(f"recipe: {rule}, got {getattr(self, field)!r}")

    def _rules(self) -> dict[str, bool]:
        return {
            "epochs must be at least 1": self.epochs >= 1,
            "batch must be at least 2": self.batch >= 2,
            "lr must be above 0 and finite": 0 < self.lr < float("inf"),
            "momentum must be at least 0 and below 1": 0 <= self.momentum < 1,
            "weight_decay must be at least 0 and finite": 0 <= self.weight_decay < float("inf"),
            "warmup_epochs must be at least 0 and below epochs": 0 <= self.warmup_epochs < self.epochs,
            "label_smoothing must be at least 0 and below 1": 0 <= self.label_smoothing < 1,
            "ema_decay must be at least 0 and below 1": 0 <= self.ema_decay < 1,
            "crop_pixels must be at least 0": self.crop_pixels >= 0,
            "cutout_pixels must be at least 0": self.cutout_pixels >= 0,
            "dropout must be at least 0 and below 1": 0 <= self.dropout < 1,
            "clip_norm must be at least 0": self.clip_norm >= 0,
        }


class BankPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a bank of shared weights is trained.

    ``sampling``: what each step runs. ``sandwich``: the space's largest network, its smallest, and ``randoms`` others; ``widening``: a
    trunk alone for a tenth of the steps; then with it ``randoms`` networks that differ from it in one stage at first, and in one up to all
    of them later; for the last six tenths ``randoms`` + 1 networks drawn evenly, which all learn from the labels. Else the first of a step
    does. ``teacher`` of the others: ``largest``, the first one's logits in that step; ``average``, those of the first with the moving
    average of the bank's weights (one forward pass more); ``labels``, none.
    """

    sampling: Literal["sandwich", "widening"] = "sandwich"
    randoms: int = 2
    teacher: Literal["largest", "average", "labels"] = "largest"
    recipe: Recipe = Recipe(epochs=30)

    def __post_init__(self) -> None:
        if self.randoms < 0:
            raise InvalidConfig(f"bank: randoms must be at least 0, got {self.randoms}")
        if self.sampling == "widening" and not self.randoms:
            raise InvalidConfig("bank: randoms must be at least 1 with widening, got 0: nothing but the trunk would be trained")
