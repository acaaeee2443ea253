"""VERB  python -m latency.profile MODEL…: how long ONNX models take on devices, and whether the number can be trusted."""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from latency.verbs import Exits, require_writable, runtime_option, seconds, seconds_or_none

if TYPE_CHECKING:
    from latency.console import Console
    from latency.devices import Device
    from latency.measurement import DeviceInfo
    from latency.model_files import NamedModel
    from latency.per_op import PerOp
    from latency.plan import TimingPlan
    from latency.profile_report import Report
    from latency.profiling import Result
    from latency.sustained import Sustained

__all__ = ["main"]


@click.command(cls=Exits)
@click.argument("asked", metavar="MODEL…", nargs=-1, required=True)
@click.option("--device", "specs", multiple=True, default=("local",), help="Where to time; may be given again.  [local]")
@runtime_option
@click.option("--threads", type=int, default=1, show_default=True, help="Threads of the runtime.")
@click.option("--plan", "plan_name", type=click.Choice(["quick", "table", "publish"]), default="publish", show_default=True,
              help="quick: one process, at most 0.9 s a model. table: three short ones, 0.4 s. publish: three to five, each until "
              "the median is known to 1 %, at most 1 min; waits for a hot device.")  # fmt: skip
@click.option("--precision", type=click.Choice(["fp32", "int8"]), default="fp32", show_default=True,
              help="int8: quantize the models first, by made-up data: for their latency alone.")  # fmt: skip
@click.option("--cores", type=click.Choice(["big", "mid", "little", "any"]), default="big", show_default=True,
              help="Class of cores to keep to, where a device has several.")  # fmt: skip
@click.option("--provider", type=click.Choice(["cpu", "xnnpack", "nnapi"]), default="cpu", show_default=True,
              help="What runs the operators, where the runtime has it.")  # fmt: skip
@click.option("--cool-wait", "settle_s", callback=seconds_or_none, metavar="DURATION",
              help="How long to wait for a hot device; 0s: do not look at it before.  [10m with publish, else 0s]")  # fmt: skip
@click.option("--sustained", "sustained_s", callback=seconds, metavar="DURATION", help="Run back to back so long, e.g. 30m, and say "
              "the latency at the start and at the end.")  # fmt: skip
@click.option("--compare", "is_comparison", is_flag=True, help="Say which of two models is faster, and by how much.")
@click.option("--per-op", "wants_ops", is_flag=True, help="Also show which operators take the time, on this computer.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), help="Draw the operators' shares; implies --per-op.")
@click.option("--shape", "shapes", multiple=True, metavar="NAME=D,D,…", help="Fix an open input; may be given again.")
@click.option("--image-size", type=click.IntRange(min=1), help="Pixels of published networks.  [224]")
@click.option("--outputs", type=click.IntRange(min=1), help="Classes of published networks.  [1000]")
@click.option("--fresh", "is_fresh", is_flag=True, help="Measure again what an earlier run measured alike on the same device.")
@click.option("--json", "as_document", is_flag=True, help="Print JSON in place of tables.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the same JSON, with every sample, to a file.")
def main(
    asked: Sequence[str], specs: Sequence[str], runtime: str, threads: int, plan_name: str, precision: str, cores: str, provider: str,
    settle_s: float | None, sustained_s: float | None, is_comparison: bool, wants_ops: bool, png: Path | None, shapes: Sequence[str],
    image_size: int | None, outputs: int | None, is_fresh: bool, as_document: bool, out: Path | None,
) -> None:  # fmt: skip
    """Time models side by side: each MODEL is an .onnx file, a folder of them, a run of nas.search (its front), or a published
    network such as mobilenet_v2 or mnasnet_a1@0.5 (its width).

    The interval is that of the median over all processes of the plan. Exit code 1 says that a model could not be measured.
    """
    from latency.console import open_console
    from latency.model_files import open_models
    from latency.model_inputs import parse_shapes
    from latency.profile_report import Report, as_json, show
    from latency.profiling import SESSIONS, compared, keep, profile, widened
    from latency.store import open_store

    if sustained_s:
        _require_alone({"--compare": is_comparison, "--per-op": wants_ops, "--png": bool(png)})
    require_writable(out, png, inputs=asked)
    plan, console = _plan(plan_name, threads, cores, provider, settle_s), open_console()
    sessions = SESSIONS if is_comparison and plan.processes == 1 else 1
    models = open_models(asked, shapes=parse_shapes(shapes), image_size=image_size, outputs=outputs)
    if is_comparison:
        _require_two(models)
    if precision == "int8":
        models, plan = _in_int8(models, plan, console)
    with contextlib.ExitStack() as stack:
        devices = _open(specs, runtime, stack)
        if sustained_s:
            _sustain(models, devices, plan, sustained_s, out, console, stack, as_document=as_document)
            return
        infos = {spec: device.info() for spec, device in devices.items()}
        console.say(_what(models, infos, plan, plan_name, sessions))
        store = open_store(warn=console.warn)
        stack.callback(store.close)
        asked_anew = is_fresh or is_comparison
        stored = {spec: {} if asked_anew else store.find([m.sha256 for m in models], info, plan) for spec, info in infos.items()}
        _lease({s: d for s, d in devices.items() if any(m.sha256 not in stored[s] for m in models)}, stack, console)
        with console.progress(len(models) * len(devices), "timed") as tick:
            results = profile(models, devices, plan, sessions=sessions, tick=tick, stored=stored)
        keep(results, store, plan_name)
        results = widened(results, store)
    report = Report(
        plan=plan, plan_name=plan_name, devices=infos, results=results, comparisons=compared(results) if is_comparison else {},
        ops=_ops(results, plan, console) if wants_ops or png else [],
    )  # fmt: skip
    if as_document:
        console.result(as_json(report, with_samples=False).decode())
    else:
        show(report, console)
    _write(report, out, png, console)
    _fail_for(dict.fromkeys(_placed(r.device, r.error) for r in results if r.error), console)


def _placed(spec: str, error: str) -> str:
    """The error with the device in front, unless it begins with that by itself."""
    kind = re.split("[:,]", spec)[0]
    return error if re.match(f"{kind}[: ]", error) else f"{spec}: {error}"


def _fail_for(errors: Iterable[str], console: "Console") -> None:
    """Exit code 1, and what went wrong, where anything did."""
    said = list(errors)
    for error in said:
        console.error(error)
    if said:
        raise click.exceptions.Exit(1)


def _require_alone(given: Mapping[str, bool]) -> None:
    """Refuses flags that mean nothing to a model that is run back to back."""
    from latency.errors import InvalidPlan

    if others := [flag for flag, is_given in given.items() if is_given]:
        raise InvalidPlan(f"--sustained runs one model after the other, back to back, and takes no {' or '.join(others)}: leave that out")


def _require_two(models: "Sequence[NamedModel]") -> None:
    from latency.model_inputs import InvalidModel

    if len(models) != 2:
        raise InvalidModel(f"--compare takes exactly two models, got {len(models)}: {', '.join(m.name for m in models)}")


def _plan(name: str, threads: int, cores: str, provider: str, settle_s: float | None) -> "TimingPlan":
    from latency.plan import plan_named

    waits = {} if settle_s is None else {"settle_s": settle_s}
    return plan_named(name, threads=threads, cores="" if cores == "any" else cores, provider=provider, **waits)


def _sustain(
    models: "Sequence[NamedModel]", devices: "Mapping[str, Device]", plan: "TimingPlan", seconds: float, out: Path | None,
    console: "Console", stack: contextlib.ExitStack, *, as_document: bool,
) -> None:  # fmt: skip
    """Runs the models one after the other; each has the device, as hot as the one before left it, unless the plan waits.

    Nothing that was measured is lost by what comes after it: it is shown at once, and ``out`` is written after every stretch.
    """
    from latency.console import duration
    from latency.sustained import UNFINISHED, show, sustain

    found: dict[tuple[str, str], Sustained] = {}

    def note(each: "Sustained") -> None:
        found[each.device, each.model] = each
        if out:
            _replace(out, _as_json(found.values(), plan, seconds))

    console.say(f"running {', '.join(m.name for m in models)} back to back for {duration(seconds)} each on {', '.join(devices)}")
    _lease(devices, stack, console)
    try:
        for spec, model in [(spec, model) for spec in devices for model in models]:
            with console.progress(None, "stretches") as tick:
                note(sustain(model, spec, devices[spec], plan, seconds, tick=tick, so_far=note))
            if not as_document:
                show(found[spec, model.name], console)
    finally:
        for each in found.values():
            if each.error == UNFINISHED and not as_document:
                show(each, console)
        if as_document:
            console.result(_as_json(found.values(), plan, seconds).decode())
        if out and found:
            console.say(f"wrote {out}")
    failed = [each for each in found.values() if each.error]
    _fail_for((f"{each.model} on {each.device} ended early: {each.error}" if each.points else each.text for each in failed), console)


def _as_json(found: "Iterable[Sustained]", plan: "TimingPlan", seconds: float) -> bytes:
    import msgspec

    return msgspec.json.format(msgspec.json.encode({"plan": plan, "seconds": seconds, "sustained": list(found)}), indent=1)


def _lease(devices: "Mapping[str, Device]", stack: contextlib.ExitStack, console: "Console") -> None:
    """Holds the devices for as long as the stack; always in the same order, so that no two processes wait for each other."""
    from latency.lease import WAIT_S, leased, place_of

    for place in sorted({place_of(spec, device) for spec, device in devices.items()}):
        stack.enter_context(leased(place, wait_s=WAIT_S, say=console.warn))


def _in_int8(
    models: "Sequence[NamedModel]", plan: "TimingPlan", console: "Console"
) -> "tuple[tuple[NamedModel, ...], TimingPlan]":
    """The models quantized, and the plan with its label."""
    import msgspec

    from latency.quantize import as_int8

    made = []
    with console.progress(len(models), "quantized") as tick:
        for model in models:
            made.append(as_int8(model))
            tick(model.name)
    return tuple(made), msgspec.structs.replace(plan, precision="int8")


def _open(specs: Sequence[str], runtime: str, stack: contextlib.ExitStack) -> "dict[str, Device]":
    """Each device once; all are open before one is used, so that a mistake in the last costs nothing."""
    from latency.devices import open_device

    devices = {}
    for spec in dict.fromkeys(specs):
        devices[spec] = open_device(spec, runtime=runtime)
        stack.callback(devices[spec].close)
    return devices


def _what(models: "Sequence[NamedModel]", infos: "Mapping[str, DeviceInfo]", plan: "TimingPlan", plan_name: str, sessions: int) -> str:
    """The plan in a sentence."""
    from latency.console import duration
    from latency.profiling import longest_s

    what = "1 model" if len(models) == 1 else f"{len(models)} models in turns"
    where = " and ".join(f"{info.name} with {info.runtime}" for info in infos.values())
    processes = plan.processes * sessions
    how = f"{plan.threads} thread{'s' * (plan.threads != 1)}, {plan_name} plan, {processes} process{'es' * (processes > 1)}"
    return f"timing {what} on {where}: {how}, at most about {duration(longest_s(len(models), len(infos), plan, sessions))}"


def _ops(results: "Sequence[Result]", plan: "TimingPlan", console: "Console") -> "list[PerOp]":
    """The operators of the models that ran somewhere."""
    from latency.errors import Failed
    from latency.per_op import profile_ops

    found, models = [], {r.model.name: r.model for r in results if not r.error}
    if models:
        console.say("operators: shares on this computer's ONNX Runtime, in a session of its own that is not timed")
    for model in models.values():
        try:
            found.append(profile_ops(model, plan))
        except Failed as error:
            console.warn(f"no operators of {model.name}: {error}")
    return found


def _write(report: "Report", out: Path | None, png: Path | None, console: "Console") -> None:
    from latency.per_op import draw
    from latency.profile_report import as_json

    written = []
    if out:
        _replace(out, as_json(report, with_samples=True))
        written.append(str(out))
    if png and report.ops:
        draw(report.ops, png)
        written.append(str(png))
    if written:
        console.say(f"wrote {' and '.join(written)}")


def _replace(file: Path, document: bytes) -> None:
    """Writes the file as a whole or not at all."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(document + b"\n")
    temporary.replace(file)


if __name__ == "__main__":
    main()
