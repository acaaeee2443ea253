"""A second counter of parameters and MACs, straight from blocks, that shares no code with nas.cost."""

import itertools

from search_spaces import Architecture, Block


def params_and_macs(arch: Architecture) -> tuple[int, int]:
    """Weights, biases and 2·C per BatchNorm; multiplications of convolutions, linear layers and SE. Stride 2 rounds up."""
    _, height, width = arch.input_chw
    params = macs = 0
    for block in arch.blocks:
        out_height, out_width = (height + block.stride - 1) // block.stride, (width + block.stride - 1) // block.stride
        for in_ch, out_ch, window, pixels in _convolutions(block, height * width, out_height * out_width):
            params += in_ch * out_ch * window + 2 * out_ch
            macs += in_ch * out_ch * window * pixels
        gated = block.out_ch if block.op == "conv" else block.hidden_ch or block.in_ch
        params += (2 * gated * block.se_ch + block.se_ch + gated) if block.se_ch else 0
        macs += 2 * gated * block.se_ch
        height, width = out_height, out_width
    widths = [arch.blocks[-1].out_ch, *([arch.head.width_ch] if arch.head.width_ch else []), arch.head.outputs]
    linear = list(itertools.pairwise(widths))
    return params + sum(i * o + o for i, o in linear), macs + sum(i * o for i, o in linear)


def _convolutions(block: Block, pixels: int, out_pixels: int) -> list[tuple[int, int, int, int]]:
    """(inputs per output channel, outputs, window, output pixels) of each convolution."""
    window = block.kernel**2
    if block.op == "conv":
        return [(block.in_ch, block.out_ch, window, out_pixels)]
    wide = block.hidden_ch or block.in_ch
    expand = [(block.in_ch, wide, 1, pixels)] if block.hidden_ch else []
    return [*expand, (1, wide, window, out_pixels), (wide, block.out_ch, 1, out_pixels)]
