"""The program itself, run as a device runs it."""

import hashlib
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from latency import QUICK, TimingPlan
from latency.measurement import half_width
from latency.runner import SOURCES, program_for
from latency.runner.job import Guard, JobModel, RunnerResult, decode, encode
from latency.runtime import RuntimeLibrary, installed
from tests.latency.models import conv_net

LIBRARY = installed()
PROGRAM = program_for(LIBRARY.libc, LIBRARY.machine) if LIBRARY else None
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no runner and runtime library for this computer")

PLAN = TimingPlan(warmup_runs=1, warmup_ms=0, min_rounds=4, min_samples=8, min_ms=0, max_ms=5000, half_width=0.5)
LIMIT_S = 200  # far more than a busy computer needs
NET = conv_net().SerializeToString()


@pytest.fixture
def library() -> RuntimeLibrary:
    assert LIBRARY
    return LIBRARY


def ran(*words: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(PROGRAM), *map(str, words)], capture_output=True, text=True, timeout=LIMIT_S, check=False)


def timed(folder: Path, library: RuntimeLibrary, plan: TimingPlan, *models: bytes) -> RunnerResult:
    return result_of(folder, encode(str(library.path), [JobModel(data=m) for m in models], plan))


def result_of(folder: Path, job: bytes) -> RunnerResult:
    (folder / "job").write_bytes(job)
    done = ran("run", folder / "job", hashlib.sha256(job).hexdigest(), folder / "result", str(LIMIT_S))
    assert (done.returncode, done.stdout) == (0, "done\n")
    return decode((folder / "result").read_bytes())[0]


def test_memory_of_a_model_is_at_least_that_of_its_weights(tmp_path: Path, library: RuntimeLibrary) -> None:
    # 512 × 512 × 3 × 3 weights of 4 bytes in each of three convolutions, and a few copies of them while it is loaded
    small, large = (timed(tmp_path, library, PLAN, conv_net(ch=ch, depth=3, side=4).SerializeToString()) for ch in (4, 512))
    weights = 3 * 512 * 512 * 9 * 4
    assert 0 < small.models_bytes < weights / 2
    assert weights < large.models_bytes - small.models_bytes < 8 * weights


@pytest.mark.parametrize("count", [0, 1, 55, 56, 63, 64, 65, 119, 120, 100_000])
def test_a_file_is_kept_under_its_name_if_its_hash_is_right(tmp_path: Path, count: int) -> None:
    data = bytes(i * 7 % 256 for i in range(count))
    (tmp_path / "part").write_bytes(data)
    assert ran("keep", tmp_path / "part", tmp_path / "whole", hashlib.sha256(data).hexdigest()).stdout == "kept\n"
    assert (tmp_path / "whole").read_bytes() == data
    assert not (tmp_path / "part").exists()


def test_a_damaged_file_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"abc")
    said = ran("keep", tmp_path / "part", tmp_path / "whole", "0" * 64).stdout
    assert said == f"damaged {hashlib.sha256(b'abc').hexdigest()}\n"
    assert not (tmp_path / "whole").exists()


def test_sizes_of_files_are_told_and_minus_one_of_those_that_are_missing(tmp_path: Path) -> None:
    (tmp_path / "five").write_bytes(b"12345")
    assert ran("size", tmp_path / "five", tmp_path / "none").stdout == f"5 {tmp_path}/five\n-1 {tmp_path}/none\nend\n"


@pytest.mark.parametrize("words", [(), ("nonsense",), ("run", "job"), ("keep", "a", "b")])
def test_other_words_get_the_usage_and_code_2(words: tuple[str, ...]) -> None:
    done = ran(*words)
    assert done.returncode == 2
    assert "runner run JOB SHA256 RESULT SECONDS" in done.stderr


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (b"", "has no data"),
        (b"runner-job 2\ndata\n", "not a job of this runner"),
        (b"runner-job 1\nfoo 1\ndata\n", "does not know: 'foo'"),
        (b"runner-job 1\nthreads x\ndata\n", "threads is no number"),
        (b"runner-job 1\nthreads 1\ndata\n", "incomplete"),
        (b"runner-job 1\nmodel 10\ndata\nshort", "ends before its models do"),
        (b"runner-job 1\ninput 10 x\ndata\n", "malformed"),
    ],
)
def test_malformed_jobs_are_refused_with_their_reason(tmp_path: Path, job: bytes, reason: str) -> None:
    (tmp_path / "job").write_bytes(job)
    done = ran("run", tmp_path / "job", hashlib.sha256(job).hexdigest(), tmp_path / "result", str(LIMIT_S))
    assert done.returncode == 2
    assert reason in done.stderr
    assert not (tmp_path / "result").exists()


def test_a_job_that_arrived_damaged_is_not_begun(tmp_path: Path) -> None:
    (tmp_path / "job").write_bytes(b"runner-job 1\n")
    done = ran("run", tmp_path / "job", "0" * 64, tmp_path / "result", str(LIMIT_S))
    assert "is damaged" in done.stderr
    assert not (tmp_path / "result").exists()


def test_a_result_that_cannot_be_written_is_said_with_its_reason(tmp_path: Path, library: RuntimeLibrary) -> None:
    job = encode(str(library.path), [], PLAN)
    (tmp_path / "job").write_bytes(job)
    done = ran("run", tmp_path / "job", hashlib.sha256(job).hexdigest(), tmp_path / "nowhere" / "result", str(LIMIT_S))
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr


def test_models_take_turns_in_rounds_of_equal_number_until_they_are_done(tmp_path: Path, library: RuntimeLibrary) -> None:
    plan = msgspec.structs.replace(PLAN, min_rounds=7, half_width=0.999)
    small, large = timed(tmp_path, library, plan, NET, conv_net(ch=16).SerializeToString()).models
    assert min(len(small.samples_ns), len(large.samples_ns)) >= 7
    for model in (small, large):
        assert len({len(block) for block in model.samples_ns}) == 1
        assert [len(block) for block in model.cpu_ns] == [len(block) for block in model.samples_ns]


def test_timing_stops_where_the_python_interval_is_narrow_enough_too(tmp_path: Path, library: RuntimeLibrary) -> None:
    # Both bootstrap 1000 times with other draws. Where noise lets it run into a limit there is nothing to compare.
    plan = msgspec.structs.replace(QUICK, half_width=0.2, max_samples=10**6, max_ms=5000)
    (model,) = timed(tmp_path, library, plan, conv_net(ch=16, depth=3).SerializeToString()).models
    spent_ms = sum(map(sum, model.samples_ns)) / 1e6
    assert half_width(model.samples_ns, model.cpu_ns) <= 0.2 * 1.5 or spent_ms >= plan.max_ms


def test_every_models_problem_is_told_and_nothing_is_timed(tmp_path: Path, library: RuntimeLibrary) -> None:
    good, bad, open_height = timed(tmp_path, library, PLAN, NET, b"garbage", conv_net(height="H").SerializeToString()).models
    assert (good.stage, good.samples_ns) == ("", ())
    assert (bad.stage, open_height.stage) == ("load", "input")
    assert open_height.problem == "only the batch may be open, and input 'x' has shape [1, 4, 'H', 8]"


def test_a_library_that_is_none_is_refused_by_the_loaders_reason(tmp_path: Path, library: RuntimeLibrary) -> None:
    text = tmp_path / "lib.so"
    text.write_text("no library")
    result = timed(tmp_path, msgspec.structs.replace(library, path=text), PLAN, NET)
    assert result.refused == "library"
    assert str(text) in result.problem


def test_the_runtimes_version_is_the_one_read_from_the_file(tmp_path: Path, library: RuntimeLibrary) -> None:
    assert timed(tmp_path, library, PLAN, NET).runtime == library.version


def test_a_crash_names_the_model_at_work(tmp_path: Path, library: RuntimeLibrary) -> None:
    with long_run(tmp_path, library) as process:
        until_at_work(process)
        process.send_signal(signal.SIGSEGV)
        _, said = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 70
    assert "crashed at model 0 by signal 11" in said


def test_a_runner_ends_by_itself_when_its_time_is_up(tmp_path: Path, library: RuntimeLibrary) -> None:
    with long_run(tmp_path, library, limit_s=1) as process:
        process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGALRM


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_runner_whose_job_is_taken_back_ends_without_a_result(tmp_path: Path, library: RuntimeLibrary, is_warm: bool) -> None:
    endless: dict[str, float] = {"min_rounds": 10**9} if is_warm else {"warmup_ms": 1e6}
    with long_run(tmp_path, library, **endless) as process:
        until_at_work(process)
        (tmp_path / "job").unlink()
        _, said = process.communicate(timeout=LIMIT_S / 2)
    assert (process.returncode, "the job was taken back" in said) == (2, True)
    assert not (tmp_path / "result").exists()


def test_a_pause_ends_too_when_the_job_is_taken_back(tmp_path: Path, library: RuntimeLibrary) -> None:
    guard = msgspec.structs.replace(SHORT, pause_ms=1e6, longest_pause_ms=1e6)
    models = [JobModel(data=NET), JobModel(data=conv_net(ch=8).SerializeToString())]
    job = encode(str(library.path), models, PLAN, references_ns=(1,), guard=guard).replace(b"\ndata\n", b"\nsysfs nowhere\ndata\n", 1)
    with started(tmp_path, job) as process:
        until_loaded(process, library)
        # Now or soon at rest; were it not yet, the job would end at the next round: the same outcome.
        time.sleep(0.3)
        (tmp_path / "job").unlink()
        _, said = process.communicate(timeout=LIMIT_S / 2)
    assert "the job was taken back" in said
    assert not (tmp_path / "result").exists()


def long_run(folder: Path, library: RuntimeLibrary, *, limit_s: float = LIMIT_S, **changes: float) -> "subprocess.Popen[str]":
    """A runner that works on its only model, by default warming it up, and goes on until it is ended."""
    plan = msgspec.structs.replace(PLAN, warmup_runs=10, max_ms=1e6, max_samples=10**9, **(changes or {"warmup_ms": 1e6}))
    return started(folder, encode(str(library.path), [JobModel(data=NET)], plan), limit_s)


def started(folder: Path, job: bytes, limit_s: float = LIMIT_S) -> "subprocess.Popen[str]":
    (folder / "job").write_bytes(job)
    words = [str(PROGRAM), "run", str(folder / "job"), hashlib.sha256(job).hexdigest(), str(folder / "result"), str(int(limit_s))]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True)


def until_at_work(process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + LIMIT_S
    while cpu_s(process) < 0.6 and time.monotonic() < deadline:  # loading takes a third of that
        time.sleep(0.02)


def until_loaded(process: "subprocess.Popen[str]", library: RuntimeLibrary) -> None:
    deadline = time.monotonic() + LIMIT_S
    while library.path.name not in Path(f"/proc/{process.pid}/maps").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)


def cpu_s(process: "subprocess.Popen[str]") -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_providers_are_appended_at_the_place_in_the_api_that_the_runner_calls(library: RuntimeLibrary) -> None:
    # A library without XNNPACK refuses it by its name: no other function of the table would.
    place = int(re.search(r"APPEND_PROVIDER = (\d+)", (SOURCES[0].parent / "ort.c").read_text())[1])  # type: ignore[index]
    code = f"""
import ctypes as c
base = c.CDLL({str(library.path)!r}).OrtGetApiBase
base.restype = c.POINTER(c.c_void_p)
api = c.cast(c.CFUNCTYPE(c.c_void_p, c.c_uint32)(base()[0])(12), c.POINTER(c.c_void_p))
options = c.c_void_p()
c.CFUNCTYPE(c.c_void_p, c.c_void_p)(api[10])(c.byref(options))
append = c.CFUNCTYPE(c.c_void_p, c.c_void_p, c.c_char_p, c.c_void_p, c.c_void_p, c.c_size_t)(api[{place}])
status = append(options, b"XNNPACK", None, None, 0)
print(c.CFUNCTYPE(c.c_char_p, c.c_void_p)(api[2])(status).decode())
"""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=False)
    assert "XNNPACK execution provider is not supported in this build" in done.stdout, done.stderr


def test_an_anchor_that_no_model_is_near_to_is_not_timed(tmp_path: Path, library: RuntimeLibrary) -> None:
    large = conv_net(ch=32, depth=4, side=25).SerializeToString()
    job = encode(str(library.path), [JobModel(data=m) for m in (NET, large, NET)], PLAN, references_ns=(0, 0))
    near, far, model = result_of(tmp_path, job).models
    assert (far.stopped, far.round_medians_ns, model.anchor) == ("unused", (), 0)
    assert len(near.round_medians_ns) == len(model.samples_ns)
    assert (near.samples_ns, model.round_medians_ns) == ((), ())


def test_the_reason_to_stop_is_told(tmp_path: Path, library: RuntimeLibrary) -> None:
    limits: dict[str, dict[str, float]] = {"max_samples": {"max_samples": 8}, "max_ms": {"max_ms": 1.0}, "converged": {"half_width": 0.99}}
    for reason, changes in limits.items():
        endless = msgspec.structs.replace(PLAN, half_width=1e-9, max_samples=10**9, max_ms=1e6)
        plan = msgspec.structs.replace(endless, **changes)
        (model,) = timed(tmp_path, library, plan, NET).models
        assert model.stopped == reason


def guarded(folder: Path, library: RuntimeLibrary, reference_ns: int, guard: Guard, sysfs: Path | None = None) -> RunnerResult:
    """A small anchor and a model, where the anchor's reference is ``reference_ns``; without ``sysfs`` the device tells no temperature."""
    models = [JobModel(data=NET), JobModel(data=conv_net(ch=8).SerializeToString())]
    job = encode(str(library.path), models, PLAN, references_ns=(reference_ns,), guard=guard)
    return result_of(folder, job.replace(b"\ndata\n", f"\nsysfs {sysfs or folder / 'nowhere'}\ndata\n".encode(), 1))


def with_zones(sysfs: Path, *zones: tuple[str, str]) -> Path:
    """The thermal zones of a device, by type and temperature in thousandths of a degree."""
    for i, (kind, value) in enumerate(zones):
        zone = sysfs / f"class/thermal/thermal_zone{i}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(f"{value}\n")
    return sysfs


SHORT = Guard(pause_ms=2, longest_pause_ms=5, pauses=3, throttled=1e18)


def test_a_device_slower_than_its_reference_is_left_to_cool_twice_as_long_each_time_and_then_given_up(
    tmp_path: Path, library: RuntimeLibrary
) -> None:
    result = guarded(tmp_path, library, 1, SHORT)
    assert (result.pauses, result.paused_ms) == (3, 2 + 4 + 5)
    assert (result.models[1].stopped, result.models[1].samples_ns) == ("throttled", ())


def test_a_device_far_slower_than_its_reference_is_given_up_at_once(tmp_path: Path, library: RuntimeLibrary) -> None:
    result = guarded(tmp_path, library, 1, msgspec.structs.replace(SHORT, throttled=1.15))
    assert (result.pauses, result.models[1].stopped) == (0, "throttled")


def test_a_slow_device_that_is_cool_is_not_left_to_cool(tmp_path: Path, library: RuntimeLibrary) -> None:
    result = guarded(tmp_path, library, 1, SHORT, with_zones(tmp_path / "sysfs", ("cpu-0", "38000")))
    assert (result.pauses, len(result.models[1].samples_ns) >= PLAN.min_rounds) == (0, True)


def test_a_slow_device_that_is_hot_is_left_to_cool(tmp_path: Path, library: RuntimeLibrary) -> None:
    result = guarded(tmp_path, library, 1, SHORT, with_zones(tmp_path / "sysfs", ("cpu-0", "71000")))
    assert (result.pauses, result.models[1].stopped) == (3, "throttled")


def test_a_slow_device_that_is_warmer_than_at_its_start_is_left_to_cool(tmp_path: Path, library: RuntimeLibrary) -> None:
    rise_of_none = msgspec.structs.replace(SHORT, rise_milli_c=0)  # so that a temperature that does not change has risen
    result = guarded(tmp_path, library, 1, rise_of_none, with_zones(tmp_path / "sysfs", ("cpu-0", "38000")))
    assert (result.pauses, result.models[1].stopped) == (3, "throttled")


def test_a_slow_device_that_is_clocked_lower_than_before_is_left_to_cool(tmp_path: Path, library: RuntimeLibrary) -> None:
    pipe, sysfs = tmp_path / "khz", with_zones(tmp_path / "sysfs", ("cpu-0", "38000"))
    os.mkfifo(pipe)
    for cpu in range(os.cpu_count() or 1):
        (sysfs / f"devices/system/cpu/cpu{cpu}/cpufreq").mkdir(parents=True)
        (sysfs / f"devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq").symlink_to(pipe)
    over = threading.Event()

    def lower() -> None:
        """The first to read gets 2400 MHz, everybody after it 1200: opening waits for a reader."""
        for khz in itertools.chain(["2400000\n"], itertools.repeat("1200000\n")):
            with suppress(BrokenPipeError), pipe.open("w") as file:
                file.write(khz)
            if over.is_set():
                return

    thread = threading.Thread(target=lower, daemon=True)
    thread.start()
    result = guarded(tmp_path, library, 1, SHORT, sysfs)
    over.set()
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    assert (result.pauses, result.models[1].stopped) == (3, "throttled")


def test_a_device_as_fast_as_its_reference_is_left_alone(tmp_path: Path, library: RuntimeLibrary) -> None:
    result = guarded(tmp_path, library, 10**12, SHORT)
    assert (result.pauses, len(result.models[1].samples_ns) >= PLAN.min_rounds) == (0, True)


def test_frequency_and_the_hottest_processor_zone_are_told_by_round(tmp_path: Path, library: RuntimeLibrary) -> None:
    sysfs = tmp_path / "sysfs"
    for cpu in range(os.cpu_count() or 1):
        folder = sysfs / f"devices/system/cpu/cpu{cpu}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text("2400000\n")
    with_zones(sysfs, ("battery", "70000"), ("cpu-0", "41000"), ("cpu-1", "43500"), ("cpu-2", "-274000"))
    result = guarded(tmp_path, library, 10**12, SHORT, sysfs)
    rounds = len(result.models[1].samples_ns)
    assert (result.zones, result.mhz, result.milli_c) == (3, (2400,) * rounds, (43500,) * rounds)
