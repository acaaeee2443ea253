"""What is said of a latency table: its file's name, the command that goes on with it, what it lacks and what to do about that."""

import shlex
from collections.abc import Collection, Mapping, Sequence

import msgspec

from latency.measurement import DeviceInfo
from latency.plan import PLANS
from latency.table_record import Conditions, Record
from search_spaces.architecture import Head, Piece, Shape

__all__ = ["command", "default_name", "lacking", "other_kernel", "size"]

SHOWN = 3  # missing pieces that a message names
USUAL: Mapping[str, object] = {
    "plan": "", "runtime": "", "image-size": 224, "width": "1", "outputs": 10, "threads": 1, "fit": 60, "held-out": 40, "seed": 0,
}  # fmt: skip
NAMED: Mapping[str, object] = {"width": "1", "outputs": 10, "plan": "table", "threads": 1, "fit": 60, "held-out": 40, "seed": 0}


def command(record: Record) -> str:
    """The command that goes on with a table."""
    return _command({**_flags(record.conditions), "out": record.path})


def default_name(conditions: Conditions, space_name: str) -> str:
    """A file's name with the space, the input, the device, and whatever else of the conditions is not usual: other tables have others.

    ``mnasnet-32-4365922fedda.jsonl``, ``mnasnet-32-width-0.5-threads-2-4365922fedda.jsonl``
    """
    flags = _flags(conditions)
    unusual = [f"{name}-{value}" for name, value in flags.items() if value and name in NAMED and value != NAMED[name]]
    return "-".join([space_name, size(conditions.input_chw, short=True), *unusual, conditions.device.id]) + ".jsonl"


def size(input_chw: Shape, *, short: bool = False) -> str:
    """An input's shape for people: ``96 px`` of square colour images, else ``1×1×1000``; ``short`` for a file's name.

    >>> size((3, 96, 96)), size((1, 1, 1000)), size((3, 96, 96), short=True), size((1, 1, 1000), short=True)
    ('96 px', '1×1×1000', '96', '1x1x1000')
    """
    channels, height, width = input_chw
    if channels == 3 and height == width:
        return f"{width}" if short else f"{width} px"
    return ("x" if short else "×").join(map(str, input_chw))


def lacking(record: Record, unknown: Collection[Piece], inputs: Sequence[Shape], *, predicts: bool) -> str:
    """That a table has no latency of these pieces, why, and what to do.

    Args:
        record: the table.
        unknown: the pieces, at least one.
        inputs: the networks' inputs.
        predicts: whether predicting was tried.
    """
    c = record.conditions
    shown = ", ".join(sorted(map(_described, unknown))[:SHOWN]) + (", …" if len(unknown) > SHOWN else "")
    many = "1 piece has" if len(unknown) == 1 else f"{len(unknown)} pieces have"
    what = f"{many} no latency in {record.path} ({shown})"
    other = next((chw for chw in inputs if chw != c.input_chw), None)
    heads = [p.layer.outputs for p in unknown if isinstance(p.layer, Head)]
    if failed := sum(p in record.unable for p in unknown):
        return f"{what}, for the device cannot run {failed} of them: leave such layers out"
    if other:
        return f"{what}, which was built for inputs of {size(c.input_chw)} and not {size(other)}: build one with {_input(other)}"
    if len(heads) == len(unknown) and heads[0] != c.head.outputs:
        return f"{what}, which was built with --outputs {c.head.outputs}: build one with --outputs {heads[0]}"
    flags = {**_flags(c), "space": "SPACE", "width": "1", "fit": 60, "held-out": 40, "seed": 0}
    build = f"build a table of their own space: {_command(flags)}"
    if predicts:
        return f"{what}, and nothing that it has is like them, to predict them by: {build}"
    return f"{what}: open it with predict=True to have them predicted, or {build}"


def other_kernel(was: DeviceInfo, now: DeviceInfo) -> str:
    """That the device runs another kernel than it did, in a sentence; "" where it does not, or where that was not noted."""
    if not was.kernel or was.kernel == now.kernel:
        return ""
    return f"it was measured under {was.kernel} and this is {now.kernel or 'unknown'}: the same device, and some per cent may have changed"


def _flags(conditions: Conditions) -> dict[str, object]:
    """The flags of the verb that ask for a table of these conditions, the file aside."""
    c = conditions
    plan = next((name for name, plan in PLANS.items() if msgspec.structs.replace(plan, threads=c.plan.threads) == c.plan), "")
    name, _, value = _input(c.input_chw).removeprefix("--").partition(" ")
    return {
        "space": c.space, "device": c.device_spec, "plan": plan, "runtime": c.runtime, name: int(value) if value.isdigit() else value,
        "width": f"{c.width:g}", "outputs": c.head.outputs, "threads": c.plan.threads, "fit": c.fit, "held-out": c.held_out, "seed": c.seed,
    }  # fmt: skip


def _command(flags: Mapping[str, object]) -> str:
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in flags.items() if USUAL.get(name) != value]
    return " ".join(["python -m latency.build_table", *words])


def _input(input_chw: Shape) -> str:
    channels, height, width = input_chw
    return f"--image-size {width}" if channels == 3 and height == width else f"--input {','.join(map(str, input_chw))}"


def _described(piece: Piece) -> str:
    c, h, w = piece.in_chw
    where = f"at {c}×{h}×{w}"
    b = piece.layer
    if isinstance(b, Head):
        return f"head of {b.outputs} outputs {where}"
    extras = [f"k{b.kernel}", f"s{b.stride}", *([f"SE {b.se_ch}"] if b.se_ch else []), *([b.skip] if b.skip != "none" else [])]
    return f"{b.op} {b.in_ch}→{b.out_ch} {' '.join(extras)} {where}"
