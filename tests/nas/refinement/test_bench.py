from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from latency import open_device
from latency.console import open_console
from latency.onnx_graph import emit
from latency.paired import ratio
from nas.cost import count
from nas.errors import NothingFeasible
from nas.jobs import open_config_task
from nas.refinement.bench import STEP_PLAN, RefineBench, open_refine_bench, refuse_impossible
from nas.refinement.places import Kind, nearest, smallest
from nas.refinement.record import keep_scale
from nas.refinement.seeds import Seed
from nas.refinement.settings import Refinement
from nas.store import Candidate, open_run
from tests.nas.refinement.walks import SEED
from tests.nas.small import config

KINDS: tuple[Kind, ...] = ("expansion", "bottleneck")


@contextmanager
def bench(folder: Path, *, noise: float = 0.001, **changed: Any) -> Iterator[RefineBench]:  # Any: values of any field
    """A refinement of ``SEED`` on the fake device, as it is opened."""
    given = config(folder, train_images=60, devices=(f"fake:noise={noise}",))
    fields: dict[str, Any] = {"seed_id": SEED.id, "origin": "made up", "target_ratio": 0.6}
    settings = Refinement(**(fields | changed))
    seed = Seed(arch=SEED, state=None, origin="made up", is_trained=False)
    with open_refine_bench(given, settings, seed, folder / "run", open_config_task(given), open_console(err=StringIO())) as opened:
        yield opened


def begin(opened: RefineBench) -> None:
    """Writes what a run writes before its first step."""
    row = Candidate(
        stage="refine", status="trained", arch=SEED, seed=0, score=0.5, score_source="short", latency=opened.seed_latency,
        latency_source="measured", cost=count(SEED),
    )  # fmt: skip
    with open_run(opened.out, opened.config) as folder:
        keep_scale(opened.out, opened.scale)
        folder.append(row)


def test_least_step_is_twice_the_interval_of_the_nearest_relatives_ratio(tmp_path: Path) -> None:
    with bench(tmp_path, noise=0.05) as opened:
        device = open_device("fake:noise=0.05")
        own, near = device.time([emit(SEED), emit(nearest(SEED, KINDS))], STEP_PLAN)
        center, low, high = ratio(near, own)
        assert opened.seed_latency.p50_ms == own.p50_ms
        assert opened.least_ms == pytest.approx(2 * own.p50_ms * max(center - low, high - center))
        assert opened.delta_ms == max(opened.least_ms, 0.01 * own.p50_ms)


def test_run_that_is_taken_up_has_the_least_step_of_its_beginning_however_restless_the_device_has_become(tmp_path: Path) -> None:
    with bench(tmp_path) as first:
        begin(first)
    with bench(tmp_path, noise=0.2) as again:
        assert again.least_ms == first.least_ms
        assert again.seed_latency == first.seed_latency
        refuse_impossible(again)  # the floor is not measured again
        assert again.floor is None


def test_floor_is_that_of_the_smallest_relative(tmp_path: Path) -> None:
    with bench(tmp_path) as opened:
        own, least = open_device("fake").time([emit(SEED), emit(smallest(SEED, KINDS))], STEP_PLAN)
        assert opened.floor is not None
        assert opened.floor.p50_ms == pytest.approx(least.p50_ms, rel=1e-3)
        assert opened.floor.p50_ms < 0.06 * own.p50_ms
        refuse_impossible(opened)


@pytest.mark.parametrize(("changed", "says"), [({"target_ratio": 0.04}, "cannot be reached"), ({"target_ratio": 0.9999}, "too restless")])
def test_target_out_of_reach_or_too_near_is_refused(tmp_path: Path, changed: dict[str, float], says: str) -> None:
    with bench(tmp_path, noise=0.01, **changed) as opened, pytest.raises(NothingFeasible, match=says):
        refuse_impossible(opened)
