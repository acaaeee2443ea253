from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from latency import PUBLISH, QUICK, Failed, open_device
from latency.onnx_graph import emit
from nas.config import RunConfig
from nas.cost import count
from nas.errors import Stopped
from nas.finals import (
    FinalJobs,
    baselines_near,
    final_plan,
    final_plan_within,
    finalists,
    predicted_baselines,
    remeasured,
    search_front,
)
from nas.jobs import Done, Job, Outcome
from nas.measuring import Meter
from nas.store import Candidate, Latency, open_run
from nas.tasks import Task
from search_spaces import Architecture, Block, Head, baseline
from tests.nas.small import config, opened, rows

FAMILIES = ("mobilenet_v2", "mnasnet_small", "mobilenet_v3_small", "mobilenet_v3_small_minimal")


def arch(out_ch: int) -> Architecture:
    return Architecture(input_chw=(3, 16, 16), blocks=(Block(op="conv", in_ch=3, out_ch=out_ch),), head=Head(outputs=3))


def candidate(out_ch: int, score: float, ms: float, **changed: object) -> Candidate:
    latency = Latency(p50_ms=ms, low_ms=ms, high_ms=ms)
    row = Candidate(stage="search", status="trained", arch=arch(out_ch), seed=0, number=out_ch, score=score, latency=latency)
    return msgspec.structs.replace(row, **changed)


RISING = [candidate(n, n / 20, float(n)) for n in range(1, 13)]  # every one is on the front


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return opened(config(tmp_path))[0]


def test_front_of_the_search_is_by_rising_latency_and_holds_trained_rows_only() -> None:
    found = [
        candidate(1, 0.5, 2.0), candidate(2, 0.4, 3.0), candidate(3, 0.9, 9.0), candidate(4, 0.3, 1.0),
        candidate(5, 1.0, 0.1, status="failed"), candidate(6, 1.0, 0.1, status="duplicate"), candidate(7, 1.0, 0.1, stage="final"),
    ]  # fmt: skip
    assert [r.number for r in search_front(found)] == [4, 1, 3]


def test_finalists_are_spread_with_both_ends() -> None:
    chosen = finalists(RunConfig(front_size=4), RISING)
    assert [r.number for r in chosen] == [1, 5, 8, 12]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_best_rewarded_is_always_a_finalist(size: int) -> None:
    # n/20 - |n/7 - 1| rises up to n = 7 and falls from there on
    chosen = finalists(RunConfig(front_size=size, reward="abs", target_ms=7.0, w=-1.0), RISING)
    assert 7 in [r.number for r in chosen]
    assert len(chosen) <= size
    assert [r.number for r in chosen] == sorted(r.number or 0 for r in chosen)


def test_baselines_lie_inside_the_range_and_are_told_from_the_nearest(task: Task) -> None:
    device = open_device("fake")
    found = baselines_near(RunConfig(baselines=FAMILIES), task, Meter(device), 0.2, 0.6)
    for b in found:
        ms = device.time([emit(b.arch)], QUICK)[0].p50_ms
        assert b.inside == (0.2 <= ms <= 0.6)
    assert sum(b.inside for b in found) >= 1


def test_at_least_three_families_stand_beside_a_front_wherever_it_lies(task: Task) -> None:
    for low_ms, high_ms in ((0.001, 0.002), (0.2, 0.6), (50.0, 60.0)):
        found = baselines_near(RunConfig(baselines=FAMILIES), task, Meter(open_device("fake")), low_ms, high_ms)
        assert len({b.label.split(" x")[0] for b in found}) >= 3


def test_no_family_has_more_widths_than_asked_for(task: Task) -> None:
    found = baselines_near(RunConfig(baselines=FAMILIES, baseline_widths=2), task, Meter(open_device("fake")), 0.01, 10.0)
    families = [b.label.split(" x")[0] for b in found]
    assert max(families.count(f) for f in families) == 2


def test_labels_name_family_and_width(task: Task) -> None:
    for b in baselines_near(RunConfig(baselines=FAMILIES), task, Meter(open_device("fake")), 0.2, 0.6):
        family, width = b.label.split(" x")
        assert b.arch == baseline(family, width=float(width), input_chw=(3, 16, 16), outputs=3)


def test_baselines_that_the_device_cannot_run_are_left_out(task: Task) -> None:
    device, missing = open_device("fake:fail=2"), dict[str, Failed]()
    found = baselines_near(RunConfig(baselines=FAMILIES), task, Meter(device), 0.01, 10.0, missing.setdefault)
    assert found
    assert missing
    assert not missing.keys() & {b.label for b in found}
    device.time([emit(b.arch) for b in found], QUICK)  # raises where one of them cannot be run


def test_device_that_runs_no_baseline_leaves_none(task: Task) -> None:
    missing: dict[str, Failed] = {}
    config = RunConfig(baselines=("mobilenet_v2@0.35", "mnasnet_small"))
    assert baselines_near(config, task, Meter(open_device("fake:fail=1")), 0.01, 10.0, missing.setdefault) == []
    assert {"mobilenet_v2 x0.35", "mnasnet_small x0.1", "mnasnet_small x1.4"} <= missing.keys()


@pytest.mark.parametrize(("low_ms", "high_ms"), [(0.2, 0.6), (50.0, 60.0)])
def test_baseline_of_a_given_width_is_there_whatever_it_takes(task: Task, low_ms: float, high_ms: float) -> None:
    families = ("mobilenet_v2@0.35", "mobilenet_v2@1.4", "mnasnet_small")
    found = baselines_near(RunConfig(baselines=families), task, Meter(open_device("fake")), low_ms, high_ms)
    assert [b.label for b in found[:2]] == ["mobilenet_v2 x0.35", "mobilenet_v2 x1.4"]
    assert found[1].arch == baseline("mobilenet_v2", width=1.4, input_chw=task.input_chw, outputs=len(task.classes))
    assert {b.label.split(" x")[0] for b in found[2:]} == {"mnasnet_small"}


def test_network_that_is_given_and_found_by_its_family_is_one(task: Task) -> None:
    found = baselines_near(RunConfig(baselines=("mnasnet_small", "mnasnet_small@0.5")), task, Meter(open_device("fake")), 0.01, 10.0)
    assert len({b.arch.id for b in found}) == len(found)
    assert "mnasnet_small x0.5" in [b.label for b in found]


def test_predicted_baselines_measure_nothing_and_lie_near_in_macs(task: Task) -> None:
    members = [baseline("mnasnet_small", width=w, input_chw=(3, 16, 16), outputs=3) for w in (0.1, 0.35)]
    found = predicted_baselines(RunConfig(baselines=("mnasnet_small",)), task, members)
    low, high = (count(m).macs for m in members)
    assert sum(low <= count(b).macs <= high for b in found) >= 2
    assert predicted_baselines(RunConfig(), task, []) == []


def jobs_of(folder: Path, members: Sequence[Candidate]) -> list[Outcome]:
    """Runs the full trainings with a made-up score; the outcomes in the order of the jobs."""
    given, done = config(folder), []
    with open_run(folder / "run", given) as run:
        source = FinalJobs(config=given, folder=run, members=members, baselines=[])
        while isinstance(job := source.next(), Job):
            done.append(Outcome(key=job.key, score=0.5, test_score=0.4))
            source.finish(job, done[-1])
    return done


def test_finals_that_are_kept_are_not_trained_again(tmp_path: Path) -> None:
    assert len(jobs_of(tmp_path, RISING[:2])) == 2
    assert [o.key for o in jobs_of(tmp_path, RISING[:4])] == [r.id for r in RISING[2:4]]
    assert len(rows(tmp_path / "run")) == 4


def test_failed_final_is_tried_again_when_the_run_goes_on(tmp_path: Path) -> None:
    given = config(tmp_path)
    with open_run(tmp_path / "run", given) as run:
        source = FinalJobs(config=given, folder=run, members=RISING[:1], baselines=[])
        job = source.next()
        assert isinstance(job, Job)
        source.finish(job, Outcome(key=job.key, error="boom"))
        assert isinstance(source.next(), Done)
        assert [r.status for r in source.failed] == ["failed"]
    assert len(jobs_of(tmp_path, RISING[:1])) == 1


def test_full_disk_in_a_final_stops_the_run_without_a_row(tmp_path: Path) -> None:
    given = config(tmp_path)
    with open_run(tmp_path / "run", given) as run:
        source = FinalJobs(config=given, folder=run, members=RISING[:1], baselines=[])
        job = source.next()
        assert isinstance(job, Job)
        with pytest.raises(Stopped, match="No space"):
            source.finish(job, Outcome(key=job.key, stop="No space left on device"))
    assert rows(tmp_path / "run") == []


def test_slowest_final_goes_first(tmp_path: Path) -> None:
    given = config(tmp_path)
    with open_run(tmp_path / "run", given) as run:
        source = FinalJobs(config=given, folder=run, members=RISING[:5], baselines=[])
        source.sort(lambda a: float(count(a).macs))
        sizes = [count(job.arch).macs for job in iter(source.next, None) if isinstance(job, Job)][:5] if len(source) else []
    assert sizes == sorted(sizes, reverse=True)


def test_measuring_all_finals_together_is_bounded() -> None:
    for models in (1, 8, 20, 500):
        plan = final_plan(models)
        assert plan.min_ms <= plan.max_ms <= PUBLISH.max_ms
        assert plan.max_ms == plan.min_ms or plan.max_ms * models <= 40_000


def test_measuring_within_a_time_gives_each_process_its_part_of_it() -> None:
    # 10 s a model in 5 processes: 2 s each, without 100 ms of loading and 1.5 warm-ups of 500 ms
    plan = final_plan_within(6, 60.0)
    assert plan.max_ms == pytest.approx(2000 - 100 - 750)
    assert (plan.processes, plan.more_processes, plan.warmup_ms) == (PUBLISH.processes, PUBLISH.more_processes, PUBLISH.warmup_ms)
    assert plan.settle_s == 15.0


def test_measuring_in_a_hurry_has_three_processes_and_a_short_warm_up() -> None:
    # 4 s a model in 3 processes: 1333 ms each, without 100 ms of loading and 1.5 warm-ups of 100 ms
    plan = final_plan_within(6, 24.0)
    assert plan.max_ms == pytest.approx(4000 / 3 - 250)
    assert (plan.processes, plan.more_processes) == (3, 0)


@pytest.mark.parametrize("seconds", [-30.0, 0.0, 1.0, 1e6])
def test_measuring_is_never_less_than_the_plans_least_nor_more_than_its_most(seconds: float) -> None:
    plan = final_plan_within(4, seconds)
    assert PUBLISH.min_ms <= plan.max_ms <= final_plan(4).max_ms
    assert 0 < plan.settle_s <= PUBLISH.settle_s


def test_remeasured_rows_hold_the_files_latencies(tmp_path: Path) -> None:
    device, paths = open_device("fake"), []
    for row in RISING[:3]:
        paths.append(tmp_path / f"{row.id}.onnx")
        paths[-1].write_bytes(emit(row.arch).SerializeToString(deterministic=True))
    found, measured = remeasured(RISING[:3], paths, device, QUICK)
    expected = [device.time([p], QUICK)[0].p50_ms for p in paths]
    assert [r.latency.p50_ms for r in found if r.latency] == expected
    assert [r.id for r in found] == [r.id for r in RISING[:3]]
    assert [m.p50_ms for m in measured.values()] == expected
    assert list(measured) == [r.id for r in RISING[:3]]


def test_final_that_the_device_cannot_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"garbage")
    with pytest.raises(Failed):
        remeasured(RISING[:1], [tmp_path / "x.onnx"], open_device("fake"), QUICK)
