"""This computer: through the runner, as every other device, or through ONNX Runtime's Python package in this process."""

import contextlib
import gc
import os
import platform
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from latency.cores import cpus_for
from latency.devices.base import Model, model_bytes, sha256
from latency.devices.facts import Facts, read_facts
from latency.devices.transport import LocalTransport
from latency.errors import DeviceError, Failed, InvalidDevice
from latency.host import host_info
from latency.measurement import DeviceInfo, Measurement, Stop, half_width
from latency.model_inputs import EXTENTS, Input, made_up
from latency.ort import onnxruntime_module
from latency.plan import TimingPlan
from latency.processes import Part, combined, in_processes
from latency.reference import open_session, reason

if TYPE_CHECKING:
    import onnxruntime

    from latency.devices.runner_device import RunnerDevice

__all__ = ["LocalDevice", "open_local", "require_way"]

STEADY = 0.05  # warm-up ends when its last runs are at most that much faster than those before
WARMUP_LIMIT = 5


class LocalDevice:
    """ONNX Runtime on the CPU of this computer, driven from Python; what else runs on it is seen in the figures, and ``problems()`` say it.

    A plan's processes are new sessions in this process: the weights lie elsewhere in each, the library and the heap do not, so they
    differ by less than processes do. There is no anchor, and the device is not looked at before (``settle_s``).
    """

    def __init__(self) -> None:
        self._info: DeviceInfo | None = None
        self._facts: Facts | None = None
        self._closed = False

    def info(self) -> DeviceInfo:
        """This computer and its ONNX Runtime, read once."""
        if self._info is None:
            onnxruntime = onnxruntime_module()
            build = onnxruntime.get_build_info().removeprefix("ORT Build Info: ")
            self._info = host_info(runtime=f"onnxruntime {onnxruntime.__version__} (python)", runtime_build=build)
        return self._info

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        """One measurement for each model, taken in turns; see ``Device.time``. All models are in memory at once."""
        if self._closed:
            raise DeviceError("the device local is closed: open it again")
        data = model_bytes(models)
        if not data:
            return ()
        cpus = self._cpus(plan)
        with _pinned(cpus):
            parts = in_processes(len(data), plan, lambda order: _session_parts(data, order, plan))
        return tuple(
            combined(p, plan=plan, device=self.info(), model_sha256=sha256(d), cpus=cpus) for p, d in zip(parts, data, strict=True)
        )

    def close(self) -> None:
        """Refuse to time from now on."""
        self._closed = True

    def _cpus(self, plan: TimingPlan) -> tuple[int, ...]:
        if plan.cpus or not plan.cores or platform.system() != "Linux":
            return plan.cpus
        self._facts = self._facts or read_facts(LocalTransport())
        return cpus_for(plan, self._facts.classes, self._facts.allowed_cpus, name="local")


def open_local(address: str, runtime: str = "") -> "LocalDevice | RunnerDevice":
    """This computer: ``runner`` times in processes of latency/runner's program, ``python`` in this one.

    ``""`` is the runner where it is there for this computer and the installed onnxruntime has a library of its own: on Linux. On macOS
    and Windows it is Python; which of the two it is stands in the device's runtime. A runtime file, as ``runtime`` or behind
    ``,runtime=``, is the runner's; ``python`` and ``runner`` may stand there too.

    Raises:
        InvalidDevice: something else stands behind the colon.
        InvalidRuntime: the file is no library for this computer.
        DeviceError: the runner is asked for where there is none.
    """
    from latency.devices.remote_device import split_address
    from latency.runner import program_for
    from latency.runtime import installed
    from latency.runtime_source import LOCAL_WAYS

    way, named = split_address(address, "local")
    chosen = named or runtime
    if chosen in LOCAL_WAYS:
        way, chosen = way or chosen, ""
    require_way(way)
    if way == "python" and chosen:
        raise InvalidDevice(f"local:python times with the onnxruntime package of this Python: to time {chosen}, say local:runner")
    if not (way or chosen):
        own = installed() if platform.system() == "Linux" else None
        way = "runner" if own and program_for(own.libc, platform.machine()) else "python"
    return LocalDevice() if way == "python" else _open_runner(chosen)


def require_way(way: str) -> None:
    """Refuses what may not stand behind ``local:``.

    Raises:
        InvalidDevice: it is neither ``runner`` nor ``python`` nor "".
    """
    from latency.runtime_source import LOCAL_WAYS

    if way not in ("", *LOCAL_WAYS):
        raise InvalidDevice(f"local: after the colon may stand runner or python, got {way!r}")


def _open_runner(chosen: str) -> "RunnerDevice":
    from latency.devices.runner_device import RunnerDevice
    from latency.devices.transport import LocalTransport
    from latency.runner import program_for
    from latency.runtime import require_fit
    from latency.runtime_source import for_linux

    machine = platform.machine()
    if platform.system() != "Linux" or program_for("glibc", machine) is None:
        raise DeviceError(f"local: the runner is for Linux on aarch64 and x86_64, not {platform.system()} on {machine}: use local:python")
    library = for_linux(machine, chosen)
    glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc").strip()
    require_fit(library, name="local", page_bytes=os.sysconf("SC_PAGE_SIZE"), glibc=glibc)
    return RunnerDevice(LocalTransport(), library, host_info(runtime="", runtime_build=""))


class _Timed:
    """One loaded model and the runs taken of it so far."""

    def __init__(self, data: bytes, index: int, plan: TimingPlan) -> None:
        self._plan, self._index = plan, index
        began = time.perf_counter_ns()
        self._session = open_session(data, plan, name=f"model {index}", model_index=index)
        self._load_ns = time.perf_counter_ns() - began
        self._binding = _bind(self._session, index)
        self._first_run_ns = sum(self._run(1)[0])
        self._wall: list[tuple[int, ...]] = []
        self._cpu: list[tuple[int, ...]] = []
        self._warmup_ns = 0
        self._spent_ms = 0.0
        self._block = 1
        self._next_check = plan.min_rounds
        self._stopped: Stop | None = None

    @property
    def done(self) -> bool:
        """Whether the plan is fulfilled, or a limit of it reached."""
        return self._stopped is not None

    def warm_up(self) -> None:
        """Run untimed until the plan's warm-up is over and the model no longer gets faster, then fix the length of a block."""
        plan, chunk = self._plan, max(1, self._plan.warmup_runs // 2)
        before, taken = float("inf"), 0
        began = time.perf_counter_ns()
        while True:
            latest = float(np.median(self._run(chunk)[0]))
            taken += chunk
            spent_ms = (time.perf_counter_ns() - began) / 1e6
            enough = taken >= plan.warmup_runs and spent_ms >= plan.warmup_ms
            if enough and (latest >= before * (1 - STEADY) or spent_ms >= WARMUP_LIMIT * plan.warmup_ms):
                break
            before = latest
        self._warmup_ns = time.perf_counter_ns() - began
        self._block = int(max(1, min(plan.block_runs, plan.block_ms * 1e6 / latest)))

    def add_block(self, *, lead_in: bool) -> None:
        """Time one block and see whether the model is done. ``lead_in`` first runs once untimed: another model just used the caches."""
        if lead_in:
            self._run(1)
        wall, cpu = self._run(self._block)
        self._wall.append(wall)
        self._cpu.append(cpu)
        self._spent_ms += sum(wall) / 1e6
        self._stopped = self._reason_to_stop()

    def part(self) -> Part:
        """The runs taken, as a value."""
        assert self._stopped
        return Part(
            samples_ns=tuple(self._wall), cpu_ns=tuple(self._cpu) if _cpu_time_counts(self._plan) else (), stopped=self._stopped,
            warmup_ns=self._warmup_ns, load_ns=self._load_ns, first_run_ns=self._first_run_ns,
        )  # fmt: skip

    def _reason_to_stop(self) -> Stop | None:
        plan, rounds = self._plan, len(self._wall)
        runs = rounds * self._block
        if runs >= plan.max_samples or self._spent_ms >= plan.max_ms:
            return "max_ms" if self._spent_ms >= plan.max_ms else "max_samples"
        if rounds < self._next_check or runs < plan.min_samples or self._spent_ms < plan.min_ms:
            return None
        # The interval costs milliseconds: looked at after every 20 % more rounds, not after each.
        self._next_check = rounds + max(1, rounds // 5)
        known = half_width(tuple(self._wall), tuple(self._cpu) if _cpu_time_counts(plan) else ())
        return "converged" if known <= plan.half_width else None

    def _run(self, times: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Wall and CPU nanoseconds of consecutive runs."""
        run, binding = self._session.run_with_iobinding, self._binding
        wall, cpu = [], []
        try:
            for _ in range(times):
                cpu_began = time.thread_time_ns()
                began = time.perf_counter_ns()
                run(binding)
                ended = time.perf_counter_ns()
                cpu.append(time.thread_time_ns() - cpu_began)
                wall.append(ended - began)
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            raise Failed(f"ONNX Runtime cannot run model {self._index}: {reason(error)}", model_index=self._index) from error
        return tuple(wall), tuple(cpu)


def _session_parts(data: Sequence[bytes], order: Sequence[int], plan: TimingPlan) -> list[Part]:
    timed = [_Timed(data[i], i, plan) for i in order]
    with _no_garbage_collection():
        for model in timed:
            model.warm_up()
        _rounds(timed)
    return [model.part() for model in timed]


def _rounds(models: Sequence[_Timed]) -> None:
    """Rounds of one block each until every model is done; every round begins with the next model."""
    first = 0
    while waiting := [m for m in (*models[first:], *models[:first]) if not m.done]:
        for model in waiting:
            model.add_block(lead_in=len(waiting) > 1)
        first = (first + 1) % len(models)


def _bind(session: "onnxruntime.InferenceSession", index: int) -> "onnxruntime.IOBinding":
    """The session's inputs bound to fixed random values, its outputs to memory of the runtime's own."""
    binding = session.io_binding()
    values = made_up(_input(value.name, value.type, value.shape, index) for value in session.get_inputs())
    for name, value in values.items():
        binding.bind_cpu_input(name, value)
    for value in session.get_outputs():
        binding.bind_output(value.name, "cpu")
    return binding


def _input(name: str, onnx_type: str, dims: Sequence[int | str | None], index: int) -> Input:
    kind = onnx_type.removeprefix("tensor(").removesuffix(")")
    if kind not in EXTENTS:
        raise Failed(f"model {index}: input {name!r} is a {onnx_type}, and only {', '.join(EXTENTS)} can be made up", model_index=index)
    if not all(isinstance(d, int) for d in dims[1:]):
        raise Failed(f"model {index}: only the batch may be open, and input {name!r} has shape {list(dims)}", model_index=index)
    return Input(name=name, dtype=kind, dims=tuple("?" if d is None else d for d in dims))


def _cpu_time_counts(plan: TimingPlan) -> bool:
    """Whether wall − CPU time of the calling thread shows preemption: it does all the work and its clock is fine enough."""
    return plan.caller_works_alone and time.get_clock_info("thread_time").resolution <= 1e-6


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def _pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Keep the calling thread, and those it starts, on the given cores; none: leave it as it is."""
    if not cpus:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise DeviceError("local: this operating system cannot pin a thread to cores; leave the plan's cpus empty")
    before = os.sched_getaffinity(0)
    if not set(cpus) <= before:
        raise DeviceError(f"local: the plan's cpus must be among {sorted(before)}, got {sorted(cpus)}")
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
