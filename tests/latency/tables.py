"""Latency tables made by hand or on the fake device, small enough to follow."""

from pathlib import Path

from latency.console import Tick
from latency.devices import open_device
from latency.devices.fake import INFO
from latency.plan import TABLE
from latency.table import LatencyTable
from latency.table_building import build, open_record
from latency.table_record import Conditions, Timing, read
from search_spaces import Edge, Head, SearchSpace, Stage

HEAD = Head(outputs=4)
SMALL = SearchSpace(
    name="small", stem=Edge(out_ch=8, kernel=3), input_chw=(3, 16, 16),
    stages=(
        Stage(name="a", out_ch=8, stride=2, op=("conv", "sepconv"), kernel=(3, 5), se=(0.0, 0.25), depths=(0, 1), width=(1.0, 2.0)),
        Stage(name="b", out_ch=16, stride=2, op=("sepconv", "mbconv3"), skip=("pool", "none"), width=(1.0, 1.5)),
    ),
)  # fmt: skip


def conditions(space: SearchSpace = SMALL, *, fit: int = 10, held_out: int = 5) -> Conditions:
    """Those of a table of a space on the fake device."""
    return Conditions(
        space=space.name, width=1.0, input_chw=space.input_chw, head=HEAD, pieces=len(space.pieces(HEAD)), device_spec="fake", runtime="",
        device=INFO, plan=TABLE, fit=fit, held_out=held_out, seed=0,
    )  # fmt: skip


def timing(ms: float, *, anchor_ms: float = 1.0) -> Timing:
    """A figure without doubt, beside anchors that took so long."""
    return Timing(
        ms=ms, low_ms=ms, high_ms=ms, runs=10, ratio=ms / anchor_ms, anchor_ms=anchor_ms, taken_at="1970-01-01T00:00:00Z",
    )  # fmt: skip


def no_tick(text: str = "", *, advance: int = 1, earlier: bool = False) -> None:
    """A progress line that nobody looks at."""


def built(path: Path, device: str = "fake", space: SearchSpace = SMALL, tick: Tick = no_tick) -> LatencyTable:
    """The table that a device gives, in a file."""
    opened = open_device(device)
    try:
        build(open_record(path, conditions(space)), space, opened, tick)
    finally:
        opened.close()
    return LatencyTable(read(path))
