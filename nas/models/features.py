"""A look into networks that are no ``Architecture``: the output of one of their parts, handed out beside the logits."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.errors import InvalidConfig, UnknownName
from nas.models.network import Network
from nas.models.taps import second_to_last

__all__ = ["FEATURES", "Feature", "Featured", "feature_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """The output of ``part``, as ``named_modules`` names it: maps (N, C, H, W), signals (N, C, L) or vectors (N, C), channels first.

    With ``token``, tokens (N, T, C), of which it takes this one: 0 is a ViT's class token. Maps with channels last are not told from
    others, and would be averaged over their channels.
    """

    part: str
    token: int | None = None

    def __post_init__(self) -> None:
        """Refuses what is no name and no number, such as 0.0."""
        if not isinstance(self.part, str) or not (self.token is None or type(self.token) is int):
            raise InvalidConfig(f"a feature is the name of a part and perhaps the number of a token, got {self.part!r} and {self.token!r}")


# What USKD's weak classifier reads: the end of the second-to-last stage; of ViTs the class token after half of the layers (the authors'
# repository, for DeiT).
FEATURES: Mapping[str, Feature] = {
    **{f"resnet{depth}": Feature(part="layer2") for depth in (20, 32, 44, 56, 110)},
    "vit_tiny": Feature(part="encoder.layers.encoder_layer_2", token=0),
    "clst_r": Feature(part="stages.1"),
    "kd_cnn_r": Feature(part="layers.6"),  # before the second pooling
    "kd_mobilenet_r": Feature(part="layers.20"),  # before the last stride
}


def feature_of(network: nn.Module) -> Feature:
    """What USKD's weak classifier reads of a network that ``build`` made: the end of its second-to-last stage, as ``second_to_last``.

    Raises:
        InvalidConfig: it is none; its feature must be named.
    """
    if isinstance(network, Network):
        return Feature(part=f"blocks.{second_to_last(network.arch).block}")
    raise InvalidConfig(
        "uskd reads a feature map: name the part that gives it, as feature=Feature(part='layer3'); nas.models.features.FEATURES has those "
        "of the reference networks"
    )


class Featured(nn.Module):
    """``network`` with one of its features; the two share their weights, and the network itself stays as it was.

    Raises:
        UnknownName: the network has no such part.
    """

    def __init__(self, network: nn.Module, feature: Feature) -> None:
        super().__init__()
        parts = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
        if feature.part not in parts:
            raise UnknownName.among("part of the network", feature.part, parts, listed=[n for n, _ in network.named_children()])
        self.network, self.feature = network, feature

    def forward(self, x: Tensor) -> Tensor:
        """The network's logits."""
        logits: Tensor = self.network(x)
        return logits

    def forward_taps(self, x: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        """Logits, and the feature (N, C, H, W), part of the same autograd graph; H and W are 1 where it has no such axes.

        Raises:
            InvalidConfig: the part gives something else, was not run just once, or what it gave was changed in place afterwards.
        """
        found: list[tuple[object, int]] = []

        def keep(_part: nn.Module, _inputs: object, output: object) -> None:
            found.append((output, output._version if isinstance(output, Tensor) else 0))

        handle = self.network.get_submodule(self.feature.part).register_forward_hook(keep)
        try:
            logits = self(x)
        finally:
            handle.remove()
        part = self.feature.part
        if len(found) != 1:
            times = f"is run {len(found)} times for one output" if found else "is not run, by itself"
            raise InvalidConfig(f"feature {part}: {times}; name a part that is run once, such as the block around it")
        output, version = found[0]
        wanted = self._mismatch(output, x)
        if wanted or not isinstance(output, Tensor):
            given = str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__
            raise InvalidConfig(f"feature {part}: gives {given} for {len(x)} inputs, wanted {wanted}")
        if output._version != version:
            raise InvalidConfig(
                f"feature {part}: the layer behind it changes it in place, as ReLU(inplace=True) does; name that one, or the block around"
            )
        y = output if self.feature.token is None else output[:, self.feature.token]
        return logits, (y.reshape(*y.shape[:2], *(1,) * (4 - y.ndim), *y.shape[2:]),)

    @torch.no_grad()
    def feature_ch(self, x: Tensor) -> int:
        """How many channels the feature has, by one run on inputs ``x`` (two or more: their axis is checked) in evaluation mode.

        Raises:
            InvalidConfig: see ``forward_taps``.
        """
        trains = {part: part.training for part in self.modules()}
        try:
            _, (feature,) = self.eval().forward_taps(x)
        finally:
            for part, training in trains.items():
                part.training = training
        return feature.shape[1]

    def _mismatch(self, output: object, x: Tensor) -> str:
        """What the part should have given for ``x`` and did not; "" where it did."""
        token, shape = self.feature.token, output.shape if isinstance(output, Tensor) else torch.Size()
        first = len(shape) > 0 and shape[0] == len(x) and isinstance(output, Tensor) and output.is_floating_point()
        if token is not None:
            return "" if first and len(shape) == 3 and -shape[1] <= token < shape[1] else f"tokens (N, T, C) with a token {token}"
        if x.ndim == 4 and x.shape[2] > 1 and len(shape) == 3:
            return "a map (N, C, H, W); of tokens (N, T, C) say which, as token=0"
        return "" if first and len(shape) in (2, 3, 4) else "a tensor (N, C, H, W), (N, C, L) or (N, C)"
