"""What a profile shows and writes: a table, sentences and bars for people, one JSON document for machines."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from latency.compare import Comparison
from latency.console import Console, ms, three_digits
from latency.measurement import DeviceInfo, Measurement
from latency.per_op import PerOp, lines
from latency.plan import TimingPlan
from latency.profiling import Result

__all__ = ["Report", "as_json", "show"]

COLUMNS = ("model", "device", "latency p50", "p90", "load", "memory", "runs", "outputs", "verdict")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one call found; ``comparisons`` and ``devices`` by the device's address."""

    plan: TimingPlan
    plan_name: str
    devices: Mapping[str, DeviceInfo]
    results: Sequence[Result]
    comparisons: Mapping[str, Comparison]
    ops: Sequence[PerOp]

    @property
    def threads(self) -> str:
        """The number of threads in words."""
        return f"{self.plan.threads} thread{'s' * (self.plan.threads != 1)}"


def show(report: Report, console: Console) -> None:
    """Prints the table of what was measured with the reasons to doubt it, then comparisons and shares."""
    measured = [(r, m) for r in report.results if (m := r.measurement)]
    if measured:
        title = f"latency of one run, {report.threads}, {report.plan_name} plan; 95 % interval of the median"
        console.table(title, COLUMNS, [_row(r, m) for r, m in measured])
    for result, _ in measured:
        for problem in result.problems():
            console.result(f"doubtful: {result.model.name} on {result.device}: {problem}")
    for device, found in report.comparisons.items():
        console.result(f"{device}: {found.text}" + ("; doubtful, see above" if _is_doubtful(report, device) else ""))
    for each in report.ops:
        console.result("\n".join(("", *lines(each))))
    if stored := sorted(m.taken_at[:10] for r, m in measured if r.is_stored):
        when = stored[0] if stored[0] == stored[-1] else f"{stored[0]} to {stored[-1]}"
        console.say(f"{len(stored)} of {len(measured)} figures were taken earlier ({when}), not beside the others; --fresh takes all now")
    for reason in dict.fromkeys(r.parity.text for r, _ in measured if r.parity and r.parity.status == "unchecked"):
        console.say(f"outputs not compared with this computer's ONNX Runtime: {reason}")


def as_json(report: Report, *, with_samples: bool) -> bytes:
    """The report as one indented JSON document, with or without every single sample."""
    models = {r.model.name: r.model for r in report.results}
    document = {
        "plan": {"name": report.plan_name, **msgspec.to_builtins(report.plan)},
        "devices": {spec: {"id": info.id, **msgspec.to_builtins(info)} for spec, info in report.devices.items()},
        "models": [
            {"name": m.name, "source": m.source, "sha256": m.sha256, "size_bytes": m.size_bytes, "inputs": msgspec.to_builtins(m.inputs)}
            for m in models.values()
        ],
        "results": [_result(r, with_samples=with_samples) for r in report.results],
        "comparisons": {d: {**msgspec.to_builtins(c), "text": c.text} for d, c in report.comparisons.items()},
        "per_op": [_per_op(each) for each in report.ops],
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _row(result: Result, taken: Measurement) -> tuple[str, ...]:
    outputs = result.parity.text if result.parity and result.parity.status == "equal" else "–"
    if result.parity and result.parity.status in ("different", "failed"):
        outputs = result.parity.status
    verdict = ("doubtful" if result.problems() else "trustworthy") + (f", of {taken.taken_at[:10]}" if result.is_stored else "")
    p90, load = (f"{three_digits(v)} ms" for v in (taken.p90_ms, taken.load_ns / 1e6))
    peak_bytes = result.parity.peak_bytes if result.parity else 0
    memory = f"{three_digits(peak_bytes / 1e6)} MB" if peak_bytes else "–"
    return (result.model.name, result.device, ms(taken.p50_ms, *taken.ci_ms), p90, load, memory, str(taken.runs), outputs, verdict)


def _is_doubtful(report: Report, device: str) -> bool:
    return any(r.problems() for r in report.results if r.device == device)


def _result(result: Result, *, with_samples: bool) -> dict[str, Any]:  # Any: JSON
    taken, about = result.measurement, {"model": result.model.name, "device": result.device}
    if taken is None:
        return {**about, "error": result.error}
    low, high = taken.ci_ms
    raw = ("samples_ns", "cpu_ns", "process_rounds", "anchor_ns", "anchor_reference_ns", "mhz")
    samples = [{name: getattr(m, name) for name in raw} for m in result.sessions]
    return {
        **about, "p50_ms": taken.p50_ms, "low_ms": low, "high_ms": high, "min_ms": taken.min_ms, "p10_ms": taken.p10_ms,
        "p90_ms": taken.p90_ms, "p99_ms": taken.p99_ms, "spread": taken.spread, "cpu_p50_ms": taken.cpu_p50_ms,
        "process_p50_ms": taken.process_p50_ms, "process_cv": taken.process_cv, "anchor_ratio": taken.anchor_ratio,
        "normalised_ms": taken.normalised_ms, "stopped": taken.stopped, "cpus": taken.cpus, "first_run_ms": taken.first_run_ns / 1e6,
        "runs": taken.runs, "rounds": len(taken.samples_ns), "rejected_share": taken.rejected_share, "load_ms": taken.load_ns / 1e6,
        "warmup_ms": taken.warmup_ns / 1e6, "taken_at": taken.taken_at, "is_stored": result.is_stored,
        "peak_bytes": result.parity.peak_bytes if result.parity else 0,
        "parity": msgspec.to_builtins(result.parity),
        "problems": list(result.problems()), "is_trustworthy": not result.problems(), **({"sessions": samples} if with_samples else {}),
    }  # fmt: skip


def _per_op(found: PerOp) -> dict[str, Any]:  # Any: JSON
    return {
        "model": found.model, "runs": found.runs, "total_ms": found.total_ms,
        "by_kind": [{"kind": kind, "share": share, "nodes": nodes} for kind, share, nodes in found.by_kind],
        "by_node": [{"name": n.name, "op": n.op, "kind": n.kind, "share": found.share(n.ms), "ms": n.ms} for n in found.nodes],
    }  # fmt: skip
