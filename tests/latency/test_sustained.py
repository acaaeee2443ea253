import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from latency import DeviceInfo, Measurement, TimingPlan, open_device, plan_named
from latency.devices.base import Model
from latency.model_files import NamedModel, open_models
from latency.sustained import UNFINISHED, Sustained, chunk_plan, sustain
from tests.latency.profiled import saved
from tests.latency.test_profile import ROOT, call


class Heating:
    """A fake device on which a stretch takes 10 s of its own clock, and every one is 10 % slower than the one before."""

    def __init__(self, spec: str = "fake:ms=2,noise=0") -> None:
        self._fake, self.now, self.stretches, self.plans = open_device(spec), 0.0, 0, list[TimingPlan]()

    def info(self) -> DeviceInfo:
        return self._fake.info()

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        (taken,) = self._fake.time(models, plan)
        slow, self.stretches, self.now = 1.1**self.stretches, self.stretches + 1, self.now + 10
        self.plans.append(plan)
        return (msgspec.structs.replace(taken, samples_ns=tuple(tuple(int(v * slow) for v in r) for r in taken.samples_ns), cpu_ns=()),)

    def close(self) -> None: ...


@pytest.fixture
def model(tmp_path: Path) -> NamedModel:
    (opened,) = open_models([str(saved(tmp_path / "a.onnx"))], shapes={}, image_size=None, outputs=None)
    return opened


def sustained(model: NamedModel, device: Heating, seconds: float) -> Sustained:
    return sustain(model, "fake", device, plan_named("quick"), seconds, clock=lambda: device.now)


def test_a_model_runs_until_the_time_is_over_and_the_end_is_held_against_the_start(model: NamedModel) -> None:
    found = sustained(model, Heating(), 60)
    assert [p.ended_s for p in found.points] == [10, 20, 30, 40, 50, 60]
    assert found.points[0].p50_ms == pytest.approx(2.0)
    # Five steps of 10 %; whole nanoseconds.
    assert found.slowdown == pytest.approx((1.1**5,) * 3, rel=1e-5)
    assert "2.00 ms (±0.00) in the first 10 s, 3.22 ms (±0.00) in the last, up to 1 min 0 s: 1.61 times as long" in found.text


def test_a_stretch_is_a_tenth_of_the_time_and_at_most_half_a_minute(model: NamedModel) -> None:
    for seconds, expected_ms in ((60, 6000), (1800, 30_000), (1, 500)):
        device = Heating()
        sustained(model, device, seconds)
        assert {plan.max_ms for plan in device.plans} == {expected_ms}


def test_a_stretch_has_no_stop_but_its_end() -> None:
    plan = chunk_plan(plan_named("publish", threads=2), 30)
    assert plan.min_ms == plan.max_ms == 30_000
    assert (plan.threads, plan.processes, plan.anchor, plan.settle_s) == (2, 1, False, 0)


def test_a_device_lost_on_the_way_keeps_what_was_measured(model: NamedModel) -> None:
    found = sustained(model, Heating("fake:ms=2,noise=0,lost=3"), 600)
    assert len(found.points) == 3
    assert "is gone after 3 models" in found.error


def test_a_device_lost_before_the_first_stretch_leaves_its_error_and_no_points(model: NamedModel) -> None:
    device = Heating("fake:lost=1")
    device.time([model.model], TimingPlan())
    found = sustained(model, device, 60)
    assert found.points == ()
    assert found.text == "a on fake: nothing was measured: the device fake is gone after 1 models, as its option lost=1 asks"


def test_what_there_is_by_then_is_told_after_every_stretch(model: NamedModel) -> None:
    told, device = list[Sustained](), Heating()
    whole = sustain(model, "fake", device, plan_named("quick"), 30, so_far=told.append, clock=lambda: device.now)
    assert [(each.points, each.error) for each in told] == [(whole.points[:n], UNFINISHED) for n in (1, 2, 3)]
    assert whole.error == ""


def test_the_verb_keeps_what_was_measured_where_another_device_fails(tmp_path: Path) -> None:
    good, bad = "fake:ms=2,noise=0,sleep_ms=50", "fake:fail=1"
    done = call(saved(tmp_path / "a.onnx"), "--device", good, "--device", bad, "--sustained", "0.1s", "--out", tmp_path / "curve.json")
    assert done.exit_code == 1
    assert f"a on {good}: 2.00 ms" in done.stdout
    error = "nothing was measured: the device fake cannot run model 0, as its option fail=1 asks"
    assert f"error: a on {bad}: {error}" in done.stderr
    first, second = json.loads((tmp_path / "curve.json").read_bytes())["sustained"]
    assert (first["device"], first["error"], bool(first["points"])) == (good, "", True)
    assert (second["device"], second["points"]) == (bad, [])


def test_ctrl_c_leaves_the_curve_as_far_as_it_goes(tmp_path: Path) -> None:
    out, device = tmp_path / "curve.json", "fake:ms=2,noise=0,sleep_ms=50"
    words = [saved(tmp_path / "a.onnx"), "--device", device, "--sustained", "1h", "--out", out]
    command = [sys.executable, "-m", "latency.profile", *map(str, words)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not out.exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        shown, story = process.communicate(timeout=200)
    assert (process.returncode, story.splitlines()[-1]) == (130, "interrupted"), story
    (found,) = json.loads(out.read_bytes())["sustained"]
    assert {p["p50_ms"] for p in found["points"]} == {2.0}
    assert found["error"] == UNFINISHED
    assert f"a on {device}: 2.00 ms" in shown


def test_the_verb_shows_the_curve_and_writes_it(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), "--device", "fake:ms=2,noise=0,sleep_ms=50", "--plan", "quick", "--sustained", "0.2s",
                "--out", tmp_path / "curve.json")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "a on fake:ms=2,noise=0,sleep_ms=50: 2.00 ms" in done.stdout
    points = json.loads((tmp_path / "curve.json").read_bytes())["sustained"][0]["points"]
    assert points[-1]["ended_s"] >= 0.2
    assert {p["p50_ms"] for p in points} == {2.0}


@pytest.mark.parametrize("text", ["6", "0m", "soon", "-1m"])
def test_a_duration_without_unit_or_length_is_wrong_usage(tmp_path: Path, text: str) -> None:
    done = call(saved(tmp_path / "a.onnx"), "--device", "fake", "--sustained", text)
    assert (done.exit_code, "expected a duration such as 90s, 30m or 1h" in done.stderr) == (2, True)


@pytest.mark.parametrize("flags", [("--compare",), ("--per-op",), ("--png", "shares.png"), ("--compare", "--per-op")])
def test_what_a_model_run_back_to_back_has_no_use_for_is_refused(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = call(saved(tmp_path / "a.onnx"), "--device", "fake", "--sustained", "1s", *flags)
    assert (done.exit_code, done.stdout) == (2, "")
    named = " or ".join(flag for flag in flags if flag.startswith("--"))
    assert done.stderr == f"error: --sustained runs one model after the other, back to back, and takes no {named}: leave that out\n"
