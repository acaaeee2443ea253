"""A device that runs latency/runner's program: deploys it once, gives it jobs, reads what it measured."""

import hashlib
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np

from latency.devices.base import Model, model_bytes, sha256
from latency.devices.transport import Result, Transport
from latency.errors import DeviceError, Failed, InvalidRuntime, Unreachable
from latency.measurement import DeviceInfo, Measurement
from latency.plan import TimingPlan
from latency.runner import program_for
from latency.runner.job import InvalidResult, JobModel, ModelResult, RunnerResult, decode, encode, limit_s
from latency.runtime import RuntimeLibrary

__all__ = ["RunnerDevice"]

SHORT_S, DEPLOY_S = 120.0, 300.0  # what takes no time may take long on a board whose cores are all at work
CRASH = re.compile(r"crashed at model (\d+) by signal (\d+)")
STAGES = {
    "load": "ONNX Runtime cannot load model {index}: {problem}",
    "input": "model {index}: {problem}",
    "run": "ONNX Runtime cannot run model {index}: {problem}",
}
ONE_RUN = TimingPlan(warmup_runs=1, warmup_ms=0, min_ms=0)


class RunnerDevice:
    """A device at the other end of a transport; the runner and ONNX Runtime's library stay in its folder, by their hashes.

    Everything else that is put there is removed after each call; where the connection was lost before that, job files of less
    than the models' size stay until the folder is cleared.
    """

    def __init__(self, transport: Transport, library: RuntimeLibrary, facts: DeviceInfo) -> None:
        """Take over the transport; nothing is sent before it is needed.

        Args:
            transport: the way to the device; closed with it.
            library: ONNX Runtime for the device.
            facts: the device without its runtime, which is filled in here.

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
        self._closed = False

    def info(self) -> DeviceInfo:
        """The facts and the runtime; reads nothing from the device."""
        return self._info

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        """One measurement for each model, taken in turns; see ``Device.time``. All models are in the device's memory at once."""
        self._require_open()
        data = model_bytes(models)
        if not data:
            return ()
        result, _ = self._do([JobModel(data=d) for d in data], plan)
        taken_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return tuple(self._measurement(m, sha256(d), plan, taken_at) for m, d in zip(result.models, data, strict=True))

    def outputs(self, model: Model, inputs: Mapping[str, np.ndarray], plan: TimingPlan = ONE_RUN) -> dict[str, np.ndarray]:
        """What the model gives for these inputs there, by name, to hold against another device.

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
        _, (values,) = self._do([JobModel(data=data, inputs=inputs)], plan, outputs=True)
        return values

    def close(self) -> None:
        """Let go of the device."""
        if not self._closed:
            self._closed = True
            self._transport.close()

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceError(f"the device {self._transport.name} is closed: open it again")

    def _measurement(self, model: ModelResult, model_sha256: str, plan: TimingPlan, taken_at: str) -> Measurement:
        return Measurement(
            samples_ns=model.samples_ns, cpu_ns=model.cpu_ns, warmup_ns=model.warmup_ns, load_ns=model.load_ns,
            plan=plan, device=self._info, model_sha256=model_sha256, taken_at=taken_at,
        )  # fmt: skip

    def _do(
        self, models: Sequence[JobModel], plan: TimingPlan, *, outputs: bool = False
    ) -> tuple[RunnerResult, list[dict[str, np.ndarray]]]:
        """Send a job, wait for it and bring its result; whatever happens, its files are removed where the device can be reached."""
        transport = self._transport
        runner, library = self._deployed or self._deploy()
        job = f"{transport.folder}/job-{secrets.token_hex(8)}"
        data = encode(library, models, plan, outputs=outputs)
        seconds = limit_s(plan, len(models))
        with tempfile.TemporaryDirectory(prefix="latency-job-") as folder:
            here = Path(folder)
            (here / "job").write_bytes(data)
            try:
                transport.push(here / "job", job)
                words = [runner, "run", job, hashlib.sha256(data).hexdigest(), f"{job}.result", str(int(seconds))]
                ended = transport.run(words, timeout_s=seconds + SHORT_S)
                return self._read(ended, f"{job}.result", here / "result", plan)
            finally:
                with suppress(DeviceError):  # what it was lost by is already on its way up
                    transport.run(["rm", "-f", job, f"{job}.result"], timeout_s=SHORT_S)

    def _read(self, ended: Result, source: str, target: Path, plan: TimingPlan) -> tuple[RunnerResult, list[dict[str, np.ndarray]]]:
        """The result that a runner left. Its exit code is not believed: only a whole result counts."""
        crash = CRASH.search(ended.err)
        if crash:
            text = f"{self._transport.name}: ONNX Runtime crashed at model {crash[1]} (signal {crash[2]})"
            raise Failed(text, model_index=int(crash[1]) if crash[1] != "-1" else None)
        try:
            self._transport.pull(source, target)
            result, outputs = decode(target.read_bytes())
        except Unreachable:
            raise
        except (DeviceError, InvalidResult, OSError) as error:
            self._no_result(ended, error)
        self._check(result, plan)
        return result, outputs

    def _no_result(self, ended: Result, error: Exception) -> NoReturn:
        self._deployed = None  # it may have been cleared away: looked at again before the next job
        said = " ".join(ended.err.split()[-60:]) or f"nothing (exit code {ended.code})"
        text = f"{self._transport.name}: the runner left no whole result ({error}); it said: {said}"
        raise DeviceError(text) from error

    def _check(self, result: RunnerResult, plan: TimingPlan) -> None:
        name = self._transport.name
        if result.refused == "cpus":
            raise DeviceError(f"{name}: the plan's cpus must be among {list(result.cpus)}, got {sorted(plan.cpus)}")
        if result.refused == "library":
            raise DeviceError(f"{name}: cannot use {self._library.name} there: {result.problem}")
        for index, model in enumerate(result.models):
            if model.stage:
                problem = " ".join(model.problem.split()).rstrip(".")
                raise Failed(STAGES[model.stage].format(index=index, problem=problem), model_index=index)

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
        with tempfile.TemporaryDirectory(prefix="latency-runner-") as folder:
            program = Path(shutil.copyfile(self._program, Path(folder) / "runner"))
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
