import re
from io import StringIO
from itertools import count
from pathlib import Path

import pytest

from latency.console import open_console
from nas.forecast import Speed
from nas.recipe import BankPlan
from nas.sharing.run_bank import SCORING_SHARE, search_seconds, train_run_bank
from nas.sharing.widening import trunk
from tests.nas.small import RECIPE, inheriting, opened

SECOND_AN_IMAGE = Speed(per_image_s=1.0, per_mac_s=0.0)


def test_bank_is_expected_to_train_all_its_networks_on_every_image_of_every_epoch(tmp_path: Path) -> None:
    given = inheriting(tmp_path, bank_epochs=3)
    task, space = opened(given)
    samples = [space.decode(picks, task.head) for picks in space.corners()]
    bank_s, each_s = search_seconds(given, space, task, samples, SECOND_AN_IMAGE)
    # the largest, the smallest and one more; 90 images to train on and 10 to validate on, all of them looked at for a score
    assert bank_s == pytest.approx(3 * 90 * 3)
    assert each_s == pytest.approx(100 * SCORING_SHARE)


def test_widening_expects_its_parts_by_their_share(tmp_path: Path) -> None:
    given = inheriting(tmp_path, bank_epochs=2, workers=1, bank=BankPlan(sampling="widening", randoms=3, teacher="labels", recipe=RECIPE))
    task, space = opened(given)
    samples = [space.decode(picks, task.head) for picks in space.corners()]
    speed = Speed(per_image_s=0.0, per_mac_s=1.0)
    bank_s, _ = search_seconds(given, space, task, samples, speed)
    first = speed.seconds(space.decode(trunk(space), task.head), 1, 1)
    each = sum(speed.seconds(arch, 1, 1) for arch in samples) / 2
    assert first != pytest.approx(each)
    assert bank_s == pytest.approx(2 * 90 * (0.1 * first + 0.3 * (first + 3 * each) + 0.6 * 4 * each))


def test_search_that_trains_candidates_expects_no_bank(tmp_path: Path) -> None:
    given = inheriting(tmp_path, evaluate="alone", epochs=2)
    task, space = opened(given)
    samples = [space.decode(picks, task.head) for picks in space.corners()]
    assert search_seconds(given, space, task, samples, SECOND_AN_IMAGE) == (0.0, 2 * 90.0)


def test_finished_bank_is_said_to_have_nothing_left(tmp_path: Path) -> None:
    given, said = inheriting(tmp_path, bank_epochs=1), StringIO()
    task, space = opened(given)
    for _ in range(2):
        train_run_bank(given, tmp_path, space, task, open_console(err=said))
    assert "bank     5 of its 5 steps" in said.getvalue()
    assert "bank     trained before" in said.getvalue()


def test_bank_that_is_taken_up_tells_the_time_left_by_its_own_steps(tmp_path: Path) -> None:
    given, said = inheriting(tmp_path, bank_epochs=1), StringIO()
    task, space = opened(given)

    def stop(step: int, steps: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run_bank(given, tmp_path, space, task, open_console(err=StringIO()), save_s=0.0, watch=stop)
    train_run_bank(given, tmp_path, space, task, open_console(err=said, clock=map(float, count(0, 10)).__next__))
    assert re.search(r"steps of the bank: 4 of 5 in (.+), about \1 left", said.getvalue())  # one step took that long, and one is left
