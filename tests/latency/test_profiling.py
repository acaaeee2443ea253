from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import onnx
import pytest

from latency import QUICK, Measurement, TimingPlan, open_device
from latency.devices import Model
from latency.model_files import NamedModel, open_models
from latency.parity import Parity
from latency.profiling import GROUP, SESSIONS, Result, compared, keep, longest_s, profile, widened
from latency.store import LatencyStore
from tests.latency.models import conv_net, one_node
from tests.latency.profiled import saved
from tests.latency.taken import DEVICE, taken


def opened(path: Path, *models: onnx.ModelProto) -> tuple[NamedModel, ...]:
    return open_models([str(saved(path / f"m{i}.onnx", model)) for i, model in enumerate(models)])


class Recorder:
    """The fake device, and what it was asked to time."""

    def __init__(self) -> None:
        self._fake = open_device("fake")
        self.info, self.close = self._fake.info, self._fake.close
        self.asked: list[list[str]] = []

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        self.asked.append([m.stem for m in models if isinstance(m, Path)])
        return self._fake.time(models, plan)


def test_every_model_gets_a_result_on_every_device(tmp_path: Path) -> None:
    devices = {spec: open_device(spec) for spec in ("fake:ms=1", "fake:ms=2")}
    results = profile(opened(tmp_path, conv_net(), conv_net(ch=8)), devices, QUICK)
    assert [(r.model.name, r.device) for r in results] == [(m, d) for d in devices for m in ("m0", "m1")]
    assert [r.measurement.p50_ms for r in results if r.measurement] == pytest.approx([1, 1, 2, 2], rel=0.01)


def test_model_that_cannot_run_leaves_the_others_measured(tmp_path: Path) -> None:
    models = opened(tmp_path, conv_net(), one_node("NoSuchOperator"), conv_net(ch=8))
    plan = TimingPlan(warmup_runs=1, warmup_ms=0, min_rounds=2, min_samples=2, min_ms=0, max_ms=5)
    first, broken, last = profile(models, {"local": open_device("local")}, plan)
    assert first.measurement
    assert last.measurement
    assert broken.measurement is None
    assert "m1" in broken.error
    assert "NoSuchOperator" in broken.error
    assert broken.problems() == (broken.error,)


def test_lost_device_keeps_what_other_devices_measured(tmp_path: Path) -> None:
    devices = {spec: open_device(spec) for spec in ("fake:lost=1", "fake")}
    results = profile(opened(tmp_path, conv_net(), conv_net(ch=8)), devices, QUICK)
    assert [(r.device, bool(r.measurement), "is gone" in r.error) for r in results] == [
        ("fake:lost=1", False, True), ("fake:lost=1", False, True), ("fake", True, False), ("fake", True, False),
    ]  # fmt: skip


def test_many_models_are_timed_in_groups(tmp_path: Path) -> None:
    device, ticks = Recorder(), list[int]()
    models = opened(tmp_path, *[conv_net(ch=1 + i) for i in range(GROUP + 2)])
    results = profile(models, {"fake": device}, QUICK, tick=lambda text="", *, advance=1, earlier=False: ticks.append(advance))
    assert [len(asked) for asked in device.asked] == ticks == [GROUP, 2]
    assert [r.model.name for r in results] == [m.name for m in models]


def test_sessions_take_turns_at_which_model_comes_first(tmp_path: Path) -> None:
    device = Recorder()
    results = profile(opened(tmp_path, conv_net(), conv_net(ch=8)), {"fake": device}, QUICK, sessions=3)
    assert device.asked == [["m0", "m1"], ["m1", "m0"], ["m0", "m1"]]
    assert [len(r.sessions) for r in results] == [3, 3]


def test_sessions_are_one_measurement_with_the_rounds_of_all(tmp_path: Path) -> None:
    (result,) = profile(opened(tmp_path, conv_net()), {"fake": open_device("fake")}, QUICK, sessions=SESSIONS)
    assert result.measurement
    assert result.measurement.samples_ns == tuple(r for m in result.sessions for r in m.samples_ns)
    assert result.measurement.warmup_ns == sum(m.warmup_ns for m in result.sessions)


def test_comparison_is_made_where_both_ran(tmp_path: Path) -> None:
    devices = {spec: open_device(spec) for spec in ("fake", "fake:fail=1")}
    results = profile(opened(tmp_path, conv_net(depth=2), conv_net(depth=9)), devices, QUICK)
    found = compared(results)
    assert list(found) == ["fake"]
    assert found["fake"].ratio > 1


@pytest.mark.parametrize("status", ["different", "failed"])
def test_outputs_that_are_wrong_or_unchecked_make_a_figure_doubtful(status: str, tmp_path: Path) -> None:
    (result,) = profile(opened(tmp_path, conv_net()), {"fake": open_device("fake")}, QUICK)
    parity = Parity(status="different" if status == "different" else "failed", text="by 3%")
    (problem,) = Result(model=result.model, device="fake", sessions=result.sessions, parity=parity).problems()
    assert problem.startswith("the outputs ")
    assert problem.endswith(": by 3%")


def test_longest_time_is_what_the_plan_allows_each_model() -> None:
    assert longest_s(3, 2, TimingPlan(max_ms=600, warmup_ms=50), 1) == pytest.approx(3 * 2 * 0.85)


def test_stored_figures_are_not_taken_again_and_stand_in_their_place(tmp_path: Path) -> None:
    models, device = opened(tmp_path, conv_net(), conv_net(ch=8), conv_net(ch=12)), Recorder()
    old = taken(models[1].sha256, 7.0)
    results = profile(models, {"fake": device}, QUICK, stored={"fake": {old.model_sha256: old}})
    assert device.asked == [["m0", "m2"]]
    assert [(r.model.name, r.is_stored) for r in results] == [("m0", False), ("m1", True), ("m2", False)]
    assert results[1].measurement == old


def test_only_what_was_taken_now_is_kept(tmp_path: Path) -> None:
    models = opened(tmp_path, conv_net(), conv_net(ch=8))
    fresh, old = (Result(model=m, device="x", sessions=(taken(m.sha256),), is_stored=i == 1) for i, m in enumerate(models))
    store = LatencyStore(tmp_path / "s.sqlite", warn=pytest.fail, now=lambda: datetime(2026, 11, 23, 6, tzinfo=UTC))
    keep([fresh, old], store, "quick")
    assert set(store.find([m.sha256 for m in models], DEVICE, QUICK)) == {models[0].sha256}
    store.close()


def test_one_process_is_widened_by_the_devices_spread_under_publish(tmp_path: Path) -> None:
    store = LatencyStore(tmp_path / "store", warn=lambda text: None)
    # Three models, each in two processes that differ by a tenth: medians of 1 and 1.1 ms.
    store.keep([taken(letter * 64, ms, at=fresh()) for letter in "abc" for ms in (1.0, 1.1)], "publish")
    (model,) = opened(tmp_path, conv_net())
    one = Result(model=model, device="ssh:board", sessions=(taken("d" * 64),))
    several = msgspec.structs.replace(one, sessions=(taken("d" * 64), taken("d" * 64)))
    (wide,), (same,) = widened([one], store), widened([several], store)
    assert wide.sessions[0].between_cv == store.spread(taken().device.id, "publish")
    assert wide.sessions[0].ci_ms[1] > 1.1 > one.sessions[0].ci_ms[1]
    assert same == several


def fresh() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
