"""The anchors: two fixed networks that are timed in turns with others, to tell a slow device from a slow network.

They are convolutions with ReLU6 and nothing else: networks with branches, such as MobileNetV3, vary by several per cent from
process to process even when nothing changed, and would bring that into every ratio.
"""

import functools

from search_spaces.architecture import Architecture, Block, Head

__all__ = ["LARGE", "SMALL", "anchor_models"]


def _plain(side: int, channels: tuple[int, ...]) -> Architecture:
    """3×3 convolutions on ``side`` × ``side`` pixels, each halving the map."""
    blocks = tuple(
        Block(op="conv", in_ch=in_ch, out_ch=out_ch, kernel=3, stride=2, act="relu6")
        for in_ch, out_ch in zip((3, *channels), channels, strict=False)
    )
    return Architecture(input_chw=(3, side, side), blocks=blocks, head=Head(outputs=10))


SMALL = _plain(32, (16, 32, 64))
LARGE = _plain(96, (32, 96, 192, 192))


@functools.cache
def anchor_models() -> tuple[bytes, bytes]:
    """The small and the large anchor, serialized: 0.7 and 46 million multiply-accumulates."""
    from latency.onnx_graph import emit

    small, large = (bytes(emit(arch).SerializeToString(deterministic=True)) for arch in (SMALL, LARGE))
    return small, large
