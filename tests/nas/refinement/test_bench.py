from pathlib import Path

import pytest

from latency import open_device
from latency.console import open_console
from latency.onnx_graph import emit
from latency.pool import DevicePool
from nas.errors import NothingFeasible
from nas.jobs import open_config_task
from nas.measuring import Meter
from nas.refinement.bench import Bench, refuse_impossible
from nas.refinement.part import Part
from nas.refinement.pricing import ByMacs
from nas.refinement.seeds import Seed
from nas.refinement.settings import Refinement
from nas.store import Latency
from tests.nas.refinement.walks import SEED
from tests.nas.small import config


def bench(folder: Path, *, slower: float, target_ratio: float) -> Bench:
    """Of a device that was so many times slower while the seed was measured than it is now."""
    given = config(folder, train_images=60)
    pool = DevicePool(["fake"], say=pytest.fail, open_one=open_device)
    meter = Meter(pool)
    own = open_device("fake").time([emit(SEED)], meter.plan)[0].p50_ms
    return Bench(
        config=given, settings=Refinement(seed_id=SEED.id, origin="made up", target_ratio=target_ratio),
        seed=Seed(arch=SEED, state=None, origin="made up", is_trained=False), out=folder / "run", console=open_console(),
        task=open_config_task(given), device=pool, meter=meter, pricing=ByMacs(), part=Part(held_out=18, steps=2, seed=0), workers=1,
        seed_latency=Latency(p50_ms=slower * own, low_ms=slower * own, high_ms=slower * own), is_new=True,
    )  # fmt: skip


# the smallest relative of this seed takes 1/20 of its latency
@pytest.mark.parametrize("slower", [0.05, 1.0])
def test_device_that_is_slower_by_now_does_not_put_a_target_out_of_reach(tmp_path: Path, slower: float) -> None:
    refuse_impossible(bench(tmp_path, slower=slower, target_ratio=0.6))


@pytest.mark.parametrize("slower", [1.0, 2.0])
def test_device_that_is_faster_by_now_does_not_bring_a_target_within_reach(tmp_path: Path, slower: float) -> None:
    with pytest.raises(NothingFeasible, match="cannot be reached"):
        refuse_impossible(bench(tmp_path, slower=slower, target_ratio=0.04))
