"""A device that measures nothing: latencies computed from the graph alone, for tests, demos and dry runs."""

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from latency.devices.base import Model, model_bytes, sha256
from latency.errors import DeviceError, Failed, InvalidDevice, Unreachable
from latency.graph_work import Work, work
from latency.measurement import DeviceInfo, Measurement, Stop
from latency.plan import TimingPlan
from search_spaces.errors import UnknownName

__all__ = ["FakeDevice", "FakeOptions", "open_fake"]

NODE_NS, MAC_NS, JITTER = 2000, 0.05, 0.02
TAKEN_AT = "1970-01-01T00:00:00Z"
INFO = DeviceInfo(kind="fake", cpu="no processor", cores=1, machine="none", os="none", runtime="fake 1")


class FakeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands behind ``fake:``, as ``name=value`` with commas between.

    - ``ms``: every model takes that long, 0: computed from its graph.
    - ``noise``: relative standard deviation of the runs; 0.5 makes measurements that did not converge.
    - ``fail``: one graph in that many cannot be run, always the same ones; 1: none can; 0: all can.
    - ``lost``: the device is gone once it has timed that many models; 0: never.
    - ``there``: a file; the device is there for as long as that is.
    - ``sleep_ms``: time that passes for each model, to have something to interrupt.
    """

    ms: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    noise: Annotated[float, Meta(ge=0, le=1)] = 0.001
    fail: Annotated[int, Meta(ge=0)] = 0
    lost: Annotated[int, Meta(ge=0)] = 0
    sleep_ms: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    there: str = ""


class FakeDevice:
    """Says 2 µs a node + 0.05 ns a multiply-accumulate, off by up to 2 % as its graph has it: the weights do not matter.

    Equal models, plans and options give equal measurements, on every computer; ``taken_at`` is the epoch.
    """

    def __init__(self, options: FakeOptions) -> None:
        self._options = options
        self._timed = 0
        self._closed = False

    def info(self) -> DeviceInfo:
        """The same made-up device at every call."""
        return INFO

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        """One measurement for each model; see ``Device.time``. Plans change the number of samples only; there is no anchor."""
        if self._closed:
            raise DeviceError("the device fake is closed: open it again")
        loaded = [(data, self._load(data, i)) for i, data in enumerate(model_bytes(models))]
        return tuple(self._measure(data, graph, plan) for data, graph in loaded)

    def close(self) -> None:
        """Refuse to time from now on."""
        self._closed = True

    def _load(self, data: bytes, index: int) -> Work:
        graph, one_in = work(data, index), self._options.fail
        if one_in and _draw("fail", graph) % one_in == 0:
            raise Failed(f"the device fake cannot run model {index}, as its option fail={one_in} asks", model_index=index)
        return graph

    def _measure(self, data: bytes, graph: Work, plan: TimingPlan) -> Measurement:
        options = self._options
        if options.lost and self._timed >= options.lost:
            raise Unreachable(f"the device fake is gone after {options.lost} models, as its option lost={options.lost} asks")
        self._timed += 1
        time.sleep(options.sleep_ms / 1000)
        _require_there(options)
        samples = _samples_ns(graph, options, plan)
        converged: Stop = "converged"
        return Measurement(
            samples_ns=samples, cpu_ns=samples, process_rounds=(plan.min_rounds,) * plan.processes if plan.processes > 1 else (),
            stopped=(converged,) * plan.processes, warmup_ns=samples[0][0] * plan.warmup_runs, load_ns=NODE_NS * graph.nodes,
            plan=plan, device=INFO, model_sha256=sha256(data), taken_at=TAKEN_AT,
        )  # fmt: skip


def open_fake(address: str, runtime: str = "") -> FakeDevice:
    """The fake device with the options in ``address``, see ``FakeOptions``.

    Raises:
        UnknownName: no such option.
        InvalidDevice: an option without a value, a number out of range, or a runtime, which it has none of.
        Unreachable: the file of the option ``there`` is not.
    """
    if runtime:
        place = f"--device ADDRESS,runtime={runtime}"
        raise InvalidDevice(f"fake: it runs no ONNX Runtime; name {runtime} behind the device it is for: {place}")
    given: dict[str, str] = {}
    for part in filter(None, address.split(",")):
        name, equals, value = part.partition("=")
        if name not in FakeOptions.__struct_fields__:
            raise UnknownName.among("option of the device fake", name, FakeOptions.__struct_fields__)
        if not equals or name in given:
            raise InvalidDevice(f"fake: expected {name}=VALUE once, got {address!r}")
        given[name] = value
    try:
        options = msgspec.convert(given, FakeOptions, strict=False)
    except msgspec.ValidationError as error:
        rule = "ms and sleep_ms take 0 to 1e6, noise 0 to 1, fail and lost a whole number from 0"
        raise InvalidDevice(f"fake: {rule}; got {address!r}") from error
    _require_there(options)
    return FakeDevice(options)


def _require_there(options: FakeOptions) -> None:
    if options.there and not Path(options.there).exists():
        raise Unreachable(f"the device fake is unplugged: make the file {options.there} again, as its option there asks")


def _samples_ns(graph: Work, options: FakeOptions, plan: TimingPlan) -> tuple[tuple[int, ...], ...]:
    base_ns = options.ms * 1e6 or NODE_NS * graph.nodes + MAC_NS * graph.macs
    base_ns *= 1 + (0 if options.ms else JITTER * (_draw("jitter", graph) % 2001 - 1000) / 1000)
    per_round = -(-plan.min_samples // plan.min_rounds)
    noise = np.random.default_rng(_draw("noise", graph)).standard_normal((plan.processes * plan.min_rounds, per_round))
    values = np.maximum(1, base_ns * (1 + options.noise * noise)).astype(np.int64)
    return tuple(tuple(row) for row in values.tolist())


def _draw(what: str, graph: Work) -> int:
    return int(hashlib.sha256(f"{what} {graph}".encode()).hexdigest()[:8], 16)
