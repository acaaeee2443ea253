"""Networks to shrink: one made by hand in which every kind of place is, and members of the built-in spaces and baselines."""

import numpy as np

from search_spaces import BASELINES, SPACES, Architecture, Block, Head, baseline

CHAIN = Architecture(
    input_chw=(3, 32, 32),
    blocks=(
        Block(name="stem", op="conv", in_ch=3, out_ch=16, stride=2, act="hswish"),
        Block(name="a", op="sepconv", in_ch=16, out_ch=24, stride=2, kernel=5),
        Block(
            name="b", op="mbconv", in_ch=24, hidden_ch=72, out_ch=24, kernel=5, skip="identity", se_ch=24, se_gate="hsigmoid", act="hswish",
        ),
        Block(name="c", op="mbconv", in_ch=24, hidden_ch=64, out_ch=24, skip="identity"),
        Block(name="d", op="mbconv", in_ch=24, hidden_ch=96, out_ch=40, stride=2, kernel=7, act="relu6"),
        Block(name="e", op="sepconv", in_ch=40, out_ch=40, skip="pool", se_ch=16),
        Block(name="last", op="conv", in_ch=40, out_ch=64, kernel=1, se_ch=8),
    ),
    head=Head(outputs=5, width_ch=32, act="hswish"),
)  # fmt: skip
"""Bottlenecks: stem | a to c | d to e (the pooled input is added channel by channel) | last."""


def many() -> dict[str, Architecture]:
    """Architectures by name: all baselines, and two drawn from each space, small."""
    found = {name: baseline(name, width=0.5, input_chw=(3, 32, 32), outputs=10) for name in BASELINES}
    for name, space in SPACES.items():
        rng, small = np.random.default_rng(7), space.at(width=0.5, input_chw=(3, 32, 32))
        found |= {f"{name} {i}": small.decode(small.sample(rng), Head(outputs=10)) for i in range(2)}
    return found
