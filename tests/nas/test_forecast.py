import itertools
from pathlib import Path

import msgspec
import pytest

from nas.cost import Cost
from nas.forecast import SLOWDOWN, STEPS, Speed, measured_speed, speed_of
from nas.store import Candidate
from search_spaces import Architecture, Block, Head
from tests.nas.small import config, opened


def arch(out_ch: int) -> Architecture:
    return Architecture(input_chw=(3, 16, 16), blocks=(Block(op="conv", in_ch=3, out_ch=out_ch, kernel=1),), head=Head(outputs=3))


def row(macs: int, seconds: float, epochs: int = 2) -> Candidate:
    cost = Cost(params=1, macs=macs, peak_activation_bytes=1)
    return Candidate(stage="search", status="trained", arch=arch(8), seed=0, number=0, cost=cost, epochs=epochs, seconds=seconds)


GUESS = Speed(per_image_s=1.0, per_mac_s=0.0)


def test_seconds_are_linear_in_macs_images_and_epochs() -> None:
    # 16·16·3·8 MACs of the convolution, 8·3 of the head
    assert Speed(per_image_s=1e-3, per_mac_s=1e-6).seconds(arch(8), 100, 3) == pytest.approx(300 * (1e-3 + 1e-6 * 6168))


def test_speed_of_rows_on_a_line_is_that_line() -> None:
    rows = [row(macs, 2 * 50 * (1e-3 + 1e-9 * macs)) for macs in (1_000_000, 2_000_000, 5_000_000)]
    speed = speed_of(rows, 50, GUESS)
    assert speed.per_image_s == pytest.approx(1e-3)
    assert speed.per_mac_s == pytest.approx(1e-9)


def test_fewer_than_three_rows_say_nothing() -> None:
    assert speed_of([row(1_000_000, 1.0)] * 2, 50, GUESS) == GUESS


def test_repeated_rejected_and_failed_rows_are_not_counted() -> None:
    good = row(1_000_000, 1.0)
    others = [msgspec.structs.replace(good, status=s) for s in ("failed", "infeasible", "duplicate")]
    assert speed_of([good, good, *others], 50, GUESS) == GUESS


@pytest.mark.parametrize("seconds", [(3.0, 2.0, 1.0), (1.0, 5.0, 40.0)])
def test_noise_never_gives_a_negative_part(seconds: tuple[float, ...]) -> None:
    speed = speed_of([row(macs, s) for macs, s in zip((1_000_000, 2_000_000, 3_000_000), seconds, strict=True)], 50, GUESS)
    assert speed.per_image_s >= -1e-12
    assert speed.per_mac_s >= 0


def test_equal_networks_give_their_mean() -> None:
    speed = speed_of([row(1_000_000, s) for s in (1.0, 2.0, 3.0)], 50, GUESS)
    assert speed.per_image_s + speed.per_mac_s * 1e6 == pytest.approx(2.0 / 100)


def test_measured_speed_is_the_clocks(tmp_path: Path) -> None:
    task, _ = opened(config(tmp_path))
    ticks = itertools.count(step=0.5)  # every step takes half a second
    speed = measured_speed([arch(8), arch(8)], task, 4, clock=lambda: next(ticks))
    assert speed.seconds(arch(8), 1, 1) == pytest.approx(SLOWDOWN * 0.5 / 4)
    assert next(ticks) == 2 * 2 * (STEPS + 1) * 0.5
