"""A device that runs latency/runner's program: deploys it once, gives it jobs, reads what it measured."""

import hashlib
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np

from latency.anchors import anchor_models
from latency.cores import cpus_for
from latency.devices.base import Model, model_bytes, sha256
from latency.devices.facts import Facts, read_facts
from latency.devices.transport import Result, Transport
from latency.errors import DeviceError, Failed, InvalidRuntime, Unreachable
from latency.measurement import DeviceInfo, Measurement
from latency.plan import TimingPlan
from latency.preflight import aftermath, settle
from latency.processes import Part, combined, in_processes
from latency.runner import program_for
from latency.runner.job import Guard, InvalidResult, JobModel, ModelResult, RunnerResult, decode, encode, limit_s
from latency.runtime import RuntimeLibrary
from latency.scratch import Scratch

__all__ = ["Once", "RunnerDevice"]

SHORT_S, DEPLOY_S = 120.0, 300.0  # what takes no time may take long on a board whose cores are all at work
CRASH = re.compile(r"crashed at model (-?\d+) by signal (\d+)")
STAGES = {
    "load": "ONNX Runtime cannot load model {index}: {problem}",
    "input": "model {index}: {problem}",
    "run": "ONNX Runtime cannot run model {index}: {problem}",
}
ONE_RUN = TimingPlan(warmup_runs=1, warmup_ms=0, min_ms=0)


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave, by name, and the memory that it took, see ``RunnerResult.models_bytes``."""

    outputs: dict[str, np.ndarray]
    peak_bytes: int


class RunnerDevice:
    """A device at the other end of a transport; the runner and ONNX Runtime's library stay in its folder, by their hashes.

    Everything else that is put there is removed after each call; where the connection was lost before that, job files of less
    than the models' size stay until the folder is cleared.
    """

    def __init__(self, transport: Transport, library: RuntimeLibrary, facts: DeviceInfo, *, seen: Facts | None = None) -> None:
        """Take over the transport; nothing is sent before it is needed.

        Args:
            transport: the way to the device; closed with it.
            library: ONNX Runtime for the device.
            facts: the device without its runtime, which is filled in here.
            seen: its classes of cores; None: looked at when a plan names one.

        Raises:
            InvalidRuntime: the library is for another machine, or no runner was built for it.
        """
        if facts.machine not in (library.machine, {"aarch64": "arm64", "x86_64": "AMD64"}[library.machine]):
            raise InvalidRuntime(f"{transport.name} is {facts.machine}, and the runtime {library.path.name} is for {library.machine}")
        program = program_for(library.libc, library.machine)
        if program is None:
            raise InvalidRuntime(f"no runner was built for {library.machine} ({library.libc}): run python -m latency.runner.build")
        self._transport, self._library, self._program = transport, library, program
        build = f"sha256 {library.sha256[:16]}"
        self._info = msgspec.structs.replace(facts, runtime=f"onnxruntime {library.version} (runner)", runtime_build=build)
        self._deployed: tuple[str, str] | None = None
        self._seen, self._has_zones = seen, False
        self._references_ns: dict[tuple[object, ...], list[int]] = {}  # of the anchors, by what they depend on
        self._closed = False

    @property
    def place(self) -> str:
        """Which device it is, such as ``android 1A2B3C``."""
        return self._transport.name

    def info(self) -> DeviceInfo:
        """The facts and the runtime; reads nothing from the device."""
        return self._info

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        """One measurement for each model, taken in turns; see ``Device.time``. All models are in the device's memory at once."""
        self._require_open()
        data = model_bytes(models)
        if not data:
            return ()
        cpus = self._cpus(plan)
        notes = settle(self._transport, self._facts(), plan.settle_s) if plan.settle_s else ()
        pinned = msgspec.structs.replace(plan, cpus=cpus)
        parts = in_processes(len(data), plan, lambda order: self._process(data, order, pinned))
        notes += aftermath(self._transport) if plan.settle_s else ()
        return tuple(
            combined(p, plan=plan, device=self._info, model_sha256=sha256(d), cpus=cpus, notes=notes)
            for p, d in zip(parts, data, strict=True)
        )

    def outputs(self, model: Model, inputs: Mapping[str, np.ndarray], plan: TimingPlan = ONE_RUN) -> dict[str, np.ndarray]:
        """What the model gives for these inputs there, by name, to hold against another device; see ``once``."""
        return self.once(model, inputs, plan).outputs

    def once(self, model: Model, inputs: Mapping[str, np.ndarray], plan: TimingPlan = ONE_RUN) -> Once:
        """The model loaded and run once, alone in a process.

        Args:
            model: as for ``time``.
            inputs: a value for each of its inputs, of the type and shape it declares (an open batch: 1).
            plan: its threads, cores and optimisation level count.

        Raises:
            Failed: the model cannot be loaded or run, or an input does not fit.
            Unreachable: the device is gone.
            DeviceError: the device was closed, or cannot follow the plan.
        """
        self._require_open()
        (data,) = model_bytes([model])
        pinned = msgspec.structs.replace(plan, cpus=self._cpus(plan))
        job = encode(self._library_there(), [JobModel(data=data, inputs=inputs)], pinned, outputs=True)
        result, (values,) = self._do(job, pinned, limit_s(plan, 1), [0])
        return Once(outputs=values, peak_bytes=result.models_bytes)

    def close(self) -> None:
        """Let go of the device."""
        if not self._closed:
            self._closed = True
            self._transport.close()

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceError(f"the device {self._transport.name} is closed: open it again")

    def _cpus(self, plan: TimingPlan) -> tuple[int, ...]:
        if plan.cpus or not plan.cores:
            return plan.cpus
        return cpus_for(plan, self._facts().classes, self._facts().allowed_cpus, name=self._transport.name)

    def _facts(self) -> Facts:
        self._seen = self._seen or read_facts(self._transport)
        return self._seen

    def _guard(self) -> Guard | None:
        """For boards and phones that tell of heat: where nothing does, as in a virtual machine, waiting cures nothing."""
        return Guard() if self._info.kind == "android" or (self._has_zones and self._info.kind != "local") else None

    def _process(self, data: Sequence[bytes], order: Sequence[int], plan: TimingPlan) -> list[Part]:
        """One process: the models in this order behind the anchors, whose times in the first process are their reference."""
        anchors = anchor_models() if plan.anchor else ()
        key = (plan.threads, plan.provider, plan.opt_level, plan.cpus)
        references = self._references_ns.get(key, [0] * len(anchors)) if anchors else []
        models = [JobModel(data=d) for d in (*anchors, *(data[i] for i in order))]
        guard = self._guard() if any(references) else None
        job = encode(self._library_there(), models, plan, references_ns=references, guard=guard)
        result, _ = self._do(job, plan, limit_s(plan, len(models), guard), [*([-1] * len(anchors)), *order])
        self._has_zones = result.zones > 0
        if not all(m.samples_ns for m in result.models[len(anchors) :]):
            slow = f"throttled: slower than at its start, and still so after {result.paused_ms / 1000:.0f} s of cooling"
            raise DeviceError(f"{self._transport.name} is {slow}: let it cool, then start again")
        ran = [m.round_medians_ns for m in result.models[: len(anchors)]]
        references = [known or round(float(np.median(now or [0]))) for known, now in zip(references, ran, strict=True)]
        if anchors:
            self._references_ns[key] = references
        return [_part(m, result, ran, references) for m in result.models[len(anchors) :]]

    def _library_there(self) -> str:
        return (self._deployed or self._deploy())[1]

    def _do(
        self, data: bytes, plan: TimingPlan, seconds: float, numbers: Sequence[int]
    ) -> tuple[RunnerResult, list[dict[str, np.ndarray]]]:
        """Send a job, wait for it and bring its result; whatever happens, its files are removed where the device can be reached.

        ``numbers`` are what messages call the job's models; -1: one of our own.
        """
        transport = self._transport
        runner, _ = self._deployed or self._deploy()
        job = f"{transport.folder}/job-{secrets.token_hex(8)}"
        with Scratch() as here:
            (here / "job").write_bytes(data)
            try:
                transport.push(here / "job", job)
                words = [runner, "run", job, hashlib.sha256(data).hexdigest(), f"{job}.result", str(int(seconds))]
                ended = transport.run(words, timeout_s=seconds + SHORT_S)
                return self._read(ended, f"{job}.result", here / "result", plan, numbers)
            finally:
                with suppress(DeviceError):  # what it was lost by is already on its way up
                    transport.run(["rm", "-f", job, f"{job}.result"], timeout_s=SHORT_S)

    def _read(
        self, ended: Result, source: str, target: Path, plan: TimingPlan, numbers: Sequence[int]
    ) -> tuple[RunnerResult, list[dict[str, np.ndarray]]]:
        """The result that a runner left. Its exit code is not believed: only a whole result counts."""
        crash = CRASH.search(ended.err)
        if crash:
            number = numbers[int(crash[1])] if crash[1] != "-1" else -1
            where = f"model {number}" if number >= 0 else "an anchor, a network of our own" if crash[1] != "-1" else "no single model"
            text = f"{self._transport.name}: ONNX Runtime crashed at {where} (signal {crash[2]})"
            raise Failed(text, model_index=number if number >= 0 else None)
        try:
            self._transport.pull(source, target)
            result, outputs = decode(target.read_bytes())
        except Unreachable:
            raise
        except (DeviceError, InvalidResult, OSError) as error:
            self._no_result(ended, error)
        self._check(result, plan, numbers)
        return result, outputs

    def _no_result(self, ended: Result, error: Exception) -> NoReturn:
        self._deployed = None  # it may have been cleared away: looked at again before the next job
        said = " ".join(ended.err.split()[-60:]) or f"nothing (exit code {ended.code})"
        text = f"{self._transport.name}: the runner left no whole result ({error}); it said: {said}"
        raise DeviceError(text) from error

    def _check(self, result: RunnerResult, plan: TimingPlan, numbers: Sequence[int]) -> None:
        name = self._transport.name
        if result.refused == "cpus":
            raise DeviceError(f"{name}: the plan's cpus must be among {list(result.cpus)}, got {sorted(plan.cpus)}")
        if result.refused == "library":
            raise DeviceError(f"{name}: cannot use {self._library.name} there: {result.problem}")
        if result.refused == "provider":
            raise DeviceError(f"{name}: {self._library.name} has no provider {plan.provider}; {result.problem}: use a runtime that has it")
        for number, model in zip(numbers, result.models, strict=True):
            if not model.stage:
                continue
            problem = " ".join(model.problem.split()).rstrip(".")
            if number < 0:
                raise DeviceError(f"{name}: the anchor, a network of our own, cannot be timed ({problem}): use a plan without anchor")
            raise Failed(STAGES[model.stage].format(index=number, problem=problem), model_index=number)

    def _deploy(self) -> tuple[str, str]:
        """Paths of the runner and the library on the device; what lies there already by its hash is not sent again."""
        transport, library = self._transport, self._library
        runner = f"{transport.folder}/runner-{hashlib.sha256(self._program.read_bytes()).hexdigest()[:16]}"
        there = f"{transport.folder}/libonnxruntime-{library.sha256[:16]}.so"
        sizes = self._sizes(runner, there)
        if not sizes or sizes[0] != self._program.stat().st_size:
            self._push_program(runner)
            sizes = self._sizes(runner, there)
        if not sizes:
            self._does_not_start(runner)
        if sizes[1] != library.path.stat().st_size:
            self._push_library(runner, there)
        self._deployed = runner, there
        return self._deployed

    def _sizes(self, *paths: str) -> list[int]:
        """Bytes of files on the device, as the runner (the first of them) tells; [] if it does not answer."""
        lines = self._transport.run([paths[0], "size", *paths], timeout_s=SHORT_S).out.splitlines()
        if len(lines) != len(paths) + 1 or lines[-1] != "end":
            return []
        return [int(line.split()[0]) for line in lines[:-1]]

    def _push_program(self, target: str) -> None:
        """An installed wheel may have lost the mark that makes a file executable."""
        with Scratch() as folder:
            program = Path(shutil.copyfile(self._program, folder / "runner"))
            program.chmod(0o755)
            self._transport.push(program, target)

    def _push_library(self, runner: str, target: str) -> None:
        part = f"{target}.{secrets.token_hex(4)}.part"
        self._transport.push(self._library.path, part)
        ended = self._transport.run([runner, "keep", part, target, self._library.sha256], timeout_s=DEPLOY_S)
        if ended.out.strip() != "kept":
            with suppress(DeviceError):
                self._transport.run(["rm", "-f", part], timeout_s=SHORT_S)
            said = (ended.out + ended.err).strip() or f"exit code {ended.code}"
            text = f"{self._transport.name}: the runtime library did not arrive whole ({said}); is there space left?"
            raise DeviceError(text)

    def _does_not_start(self, runner: str) -> NoReturn:
        ended = self._transport.run([runner, "size", runner], timeout_s=SHORT_S)
        said = " ".join((ended.err or ended.out).split()[-40:]) or f"exit code {ended.code}"
        machine = f"{self._library.machine} ({self._library.libc})"
        # A file that was put there executable, and may not be executed: its file system is mounted noexec.
        where = "set TMPDIR here, or XDG_CACHE_HOME on a board, to a folder where programs may run"
        hint = f"; is {self._transport.folder} mounted noexec? {where}" if "ermission denied" in said else ""
        raise DeviceError(f"{self._transport.name}: the runner for {machine} does not start there: {said}{hint}")


def _part(model: ModelResult, result: RunnerResult, anchors: Sequence[tuple[int, ...]], references_ns: Sequence[int]) -> Part:
    assert model.stopped != "" and model.stopped != "unused"  # noqa: PT018
    rounds, has_anchor = len(model.samples_ns), model.anchor >= 0
    return Part(
        samples_ns=model.samples_ns, cpu_ns=model.cpu_ns, stopped=model.stopped, warmup_ns=model.warmup_ns, load_ns=model.load_ns,
        first_run_ns=model.first_run_ns, anchor_ns=anchors[model.anchor][:rounds] if has_anchor else (),
        anchor_reference_ns=references_ns[model.anchor] if has_anchor else 0, mhz=result.mhz[:rounds] if any(result.mhz) else (),
    )  # fmt: skip
