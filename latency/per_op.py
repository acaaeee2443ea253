"""Where a network's time goes: ONNX Runtime's own profile, taken on this computer in a session that is never timed."""

import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from latency.console import count, three_digits
from latency.errors import Failed
from latency.figures import save_figure
from latency.model_files import NamedModel
from latency.model_inputs import made_up
from latency.plan import TimingPlan
from latency.scratch import Scratch

__all__ = ["Node", "PerOp", "draw", "lines", "profile_ops", "read_profile"]

WARMUP_RUNS, MIN_RUNS, MAX_RUNS = 5, 20, 200
MIN_S = 0.3
CONTAINERS = ("If", "Loop", "Scan", "SequenceMap")  # their time is that of the nodes inside them, which are listed too
SHOWN_NODES = 12
BAR = 32
PARTS = " ▏▎▍▌▋▊▉"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """An operator as ONNX Runtime runs it, after fusing; ``kind`` also tells convolutions apart; ``ms`` a run, under the profiler."""

    name: str
    op: str
    kind: str
    ms: float


class PerOp(msgspec.Struct, frozen=True, kw_only=True):
    """All operators of a model, by falling time. The profiler slows small networks by half: good for shares, not for latencies."""

    model: str
    runs: int
    nodes: tuple[Node, ...]

    @property
    def total_ms(self) -> float:
        """Time in all operators; 0 where each takes less than the profile's microsecond."""
        return sum(node.ms for node in self.nodes)

    def share(self, ms: float) -> float:
        """That time as part of all."""
        return ms / self.total_ms if self.total_ms else 0.0

    @property
    def by_kind(self) -> tuple[tuple[str, float, int], ...]:
        """(kind of operator, its share of the time, how many there are), by falling share."""
        groups: dict[str, list[float]] = defaultdict(list)
        for node in self.nodes:
            groups[node.kind].append(node.ms)
        shares = [(kind, self.share(sum(each)), len(each)) for kind, each in groups.items()]
        return tuple(sorted(shares, key=lambda s: -s[1]))


def profile_ops(model: NamedModel, plan: TimingPlan) -> PerOp:
    """The model's operators and their times with the plan's threads and optimisation level: 20 to 200 runs, or 0.3 s.

    Raises:
        Failed: ONNX Runtime cannot load or run the model.
    """
    from latency.reference import open_session, reason

    with Scratch() as folder:
        here = msgspec.structs.replace(plan, provider="cpu")
        session = open_session(model.model, here, name=model.name, profile_prefix=str(folder / "profile"))
        feed = made_up(model.inputs)
        began, runs = time.monotonic(), 0
        try:
            while runs < WARMUP_RUNS + MIN_RUNS or (runs < MAX_RUNS and time.monotonic() - began < MIN_S):
                session.run(None, feed)
                runs += 1
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise Failed(f"ONNX Runtime cannot run {model.name}: {reason(error)}") from error
        finally:
            written = session.end_profiling()
        return read_profile(msgspec.json.decode(Path(written).read_bytes()), model=model.name)


def read_profile(events: Sequence[dict[str, Any]], *, model: str) -> PerOp:  # Any: JSON
    """The operators in ONNX Runtime's trace events, without the first five runs.

    Raises:
        Failed: the trace holds no more runs than those.
    """
    starts = sorted(e["ts"] for e in events if e["cat"] == "Session" and e["name"] == "model_run")
    if len(starts) <= WARMUP_RUNS:
        raise Failed(f"{model}: ONNX Runtime's profile holds {len(starts)} runs, and more than {WARMUP_RUNS} are needed")
    runs, times_us = len(starts) - WARMUP_RUNS, defaultdict[tuple[str, str, str, str], list[float]](list)
    for event in events:
        op = event.get("args", {}).get("op_name", "")
        is_run = event["cat"] == "Node" and event["name"].endswith("_kernel_time") and op not in CONTAINERS
        if is_run and event["ts"] >= starts[WARMUP_RUNS]:
            name = event["name"].removesuffix("_kernel_time")
            times_us[event["args"].get("node_index", ""), name, op, _kind(event["args"])].append(event["dur"])
    nodes = [Node(name=name or op, op=op, kind=kind, ms=_a_run(each, runs) / 1000) for (_, name, op, kind), each in times_us.items()]
    return PerOp(model=model, runs=runs, nodes=tuple(sorted(nodes, key=lambda n: -n.ms)))


def lines(found: PerOp) -> tuple[str, ...]:
    """The shares as text: a bar for each type of operator, then the slowest nodes."""
    if not found.nodes:
        return (f"{found.model}: ONNX Runtime has computed everything while loading, and no operator is left",)
    width = max(len(kind) for kind, _, _ in found.by_kind)
    title = f"{found.model}: {count(len(found.nodes))} operators, {three_digits(found.total_ms)} ms in them under the profiler"
    bars = [f"  {kind:{width}}  {share:6.1%}  {_bar(share / (found.by_kind[0][1] or 1))}  ×{n}" for kind, share, n in found.by_kind]
    top = found.nodes[:SHOWN_NODES]
    names = max(len(node.name) for node in top)
    slow = [f"  {n.name:{names}}  {n.kind:{width}}  {found.share(n.ms):6.1%}  {three_digits(n.ms)} ms" for n in top]
    return (title, *bars, f"the slowest {len(top)}:", *slow)


def draw(found: Sequence[PerOp], path: Path) -> None:
    """Draws one stacked bar a model, shares by type of operator, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shares = [{kind: share for kind, share, _ in each.by_kind} for each in found]
    kinds = sorted({kind for each in shares for kind in each}, key=lambda kind: -sum(each.get(kind, 0) for each in shares))
    figure, axes = plt.subplots(figsize=(9, 2.2 + 0.5 * len(found)), dpi=130, layout="constrained")
    names, left = [each.model for each in found], np.zeros(len(found))
    for i, kind in enumerate(kinds):
        values = np.array([each.get(kind, 0.0) for each in shares]) * 100
        axes.barh(range(len(names)), values, left=left, label=kind, color=plt.get_cmap("tab20")(i % 20))
        left += values
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of the time in operators, in %")
    figure.legend(fontsize=7, ncols=5, loc="outside lower center")
    save_figure(figure, path)


def _kind(args: dict[str, Any]) -> str:  # Any: JSON
    """The operator's type; of a convolution with its kernel, and whether it is depthwise: ``Conv 3×3 depthwise``."""
    op, shapes = args["op_name"], [shape for of_type in args.get("input_type_shape", ()) for shape in of_type.values()]
    if op not in ("Conv", "FusedConv") or len(shapes) < 2 or min(map(len, shapes[:2])) < 3:
        return str(op)
    image, weight = shapes[:2]
    depthwise = " depthwise" if weight[1] == 1 and image[1] > 1 else ""
    return f"{op} {'×'.join(map(str, weight[2:]))}{depthwise}"


def _a_run(times_us: Sequence[float], runs: int) -> float:
    """Microseconds a run. The profile counts whole ones, so a median would be coarse: the mean of the middle half is not."""
    if len(times_us) != runs:  # inside a loop or a branch
        return sum(times_us) / runs
    ordered, quarter = np.sort(np.asarray(times_us, dtype=np.float64)), len(times_us) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def _bar(share: float) -> str:
    """A bar of ``share`` times the full width, to an eighth of a character."""
    eighths = round(share * BAR * 8)
    return ("█" * (eighths // 8) + PARTS[eighths % 8].strip()).ljust(BAR)
