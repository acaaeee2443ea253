import math
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from PIL import Image

from latency.console import open_console
from nas.calibration import Bin, Calibration
from nas.distillation.lesson import PLAIN, LessonConfig
from nas.distillation.lessons import label
from nas.distillation.report import best_lessons, paired, summaries, told_apart, write
from nas.store import Candidate
from search_spaces import Architecture, Block, Head

EMPTY, FULL = Bin(images=0, confidence=0.0, accuracy=0.0), Bin(images=5, confidence=0.98, accuracy=0.8)
TESTED = Calibration(ece=0.05, nll=0.9, brier=0.4, bins=(*(EMPTY,) * 14, FULL))


def student(out_ch: int = 4) -> Candidate:
    arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=out_ch),), head=Head(outputs=2))
    return Candidate(stage="final", status="trained", arch=arch, seed=0, score=0.5, test_score=0.5)


def row(loss: str, seed: int, valid: float, test: float | None = None, *, weight: float = 1.0, out_ch: int = 4) -> Candidate:
    return Candidate(
        stage="distill", status="trained", arch=student(out_ch).arch, seed=seed, score=valid, test_score=test, key=f"{loss}{seed}{weight}",
        lesson=LessonConfig(loss=loss, weight=weight), test_calibration=TESTED if test is not None else None,
    )  # fmt: skip


def test_gain_pairs_trainings_of_one_seed() -> None:
    plain = [row(PLAIN, s, 0.5, t) for s, t in ((1, 0.50), (2, 0.60), (3, 0.70))]
    nkd = [row("nkd", s, 0.5, t) for s, t in ((1, 0.52), (2, 0.63), (3, 0.71), (4, 0.99))]
    # differences .02, .03, .01: mean .02, deviation .01, standard error .01 / sqrt(3); seed 4 has no partner
    gain = paired(nkd, plain)
    assert gain is not None
    half = 4.302653 * 0.01 / math.sqrt(3)  # Student's t for two degrees of freedom, from a printed table
    assert (gain.mean, gain.error, gain.pairs) == pytest.approx((0.02, 0.01 / math.sqrt(3), 3))
    assert (gain.low, gain.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-7)
    assert not gain.is_clear  # though the mean is 3.5 standard errors from 0: three seeds say little


def test_equal_differences_are_no_clear_gain_though_their_interval_has_no_width() -> None:
    tests = (0.1, 0.3, 0.7)
    gain = paired([row("kd", s, 0.5, t + 0.1) for s, t in enumerate(tests)], [row(PLAIN, s, 0.5, t) for s, t in enumerate(tests)])
    assert gain is not None
    assert (gain.low, gain.high) == pytest.approx((0.1, 0.1))
    assert not gain.is_clear


def test_two_pairs_are_no_clear_gain_however_close_they_are() -> None:
    gain = paired([row("kd", 1, 0.5, 0.6), row("kd", 2, 0.5, 0.6001)], [row(PLAIN, 1, 0.5, 0.5), row(PLAIN, 2, 0.5, 0.5)])
    assert gain is not None
    assert gain.low > 0
    assert not gain.is_clear


def test_three_pairs_far_from_zero_are_a_clear_gain() -> None:
    # differences .10, .11, .12: mean .11, half of the interval 4.3 * .01 / sqrt(3) = .025
    gain = paired([row("kd", s, 0.5, 0.6 + 0.01 * s) for s in range(3)], [row(PLAIN, s, 0.5, 0.5) for s in range(3)])
    assert gain is not None
    assert gain.is_clear


def test_gain_is_by_valid_where_test_was_not_asked() -> None:
    gain = paired([row("kd", 1, 0.6)], [row(PLAIN, 1, 0.5)])
    assert gain is not None
    assert gain.mean == pytest.approx(0.1)
    assert gain.on == "valid"
    assert math.isnan(gain.error)
    assert not gain.is_clear


def test_gain_does_not_mix_test_and_valid() -> None:
    plain = [row(PLAIN, 1, 0.5, 0.50), row(PLAIN, 2, 0.5, 0.50)]
    half = paired([row("kd", 1, 0.6, 0.9), row("kd", 2, 0.8)], plain)
    assert half is not None
    assert (half.mean, half.pairs) == pytest.approx((0.2, 2))
    assert half.on == "valid"


def test_seed_without_a_partner_does_not_keep_a_gain_from_test() -> None:
    gain = paired([row("kd", 1, 0.6, 0.9), row("kd", 2, 0.8)], [row(PLAIN, 1, 0.5, 0.5)])
    assert gain is not None
    assert (gain.mean, gain.pairs) == pytest.approx((0.4, 1))
    assert gain.on == "test"


def test_gain_without_a_shared_seed_is_none() -> None:
    assert paired([row("kd", 1, 0.6)], [row(PLAIN, 2, 0.5)]) is None
    assert paired([row("kd", 1, 0.6)], []) is None


def test_rows_are_summed_up_by_student_and_lesson() -> None:
    rows = [row(loss, seed, 0.5, 0.5, out_ch=ch) for ch in (4, 8) for loss in (PLAIN, "kd") for seed in (1, 2)]
    found = summaries([student(4), student(8)], rows)
    assert [(s.student.id, s.lesson.loss, len(s.rows)) for s in found] == [
        (student(ch).id, loss, 2) for ch in (4, 8) for loss in (PLAIN, "kd")
    ]
    assert [s.gain is None for s in found] == [True, False, True, False]


def test_every_student_has_its_lessons_in_the_same_order_however_its_trainings_ended() -> None:
    rows = [row("kd", 1, 0.6), row(PLAIN, 1, 0.5), row("nkd", 1, 0.6, out_ch=8), row(PLAIN, 1, 0.5, out_ch=8), row("kd", 1, 0.6, out_ch=8)]
    found = summaries([student(), student(8)], rows)
    assert [(s.student.id == student().id, s.lesson.loss) for s in found] == [
        (True, "kd"), (True, PLAIN), (False, "kd"), (False, PLAIN), (False, "nkd"),
    ]  # fmt: skip


@pytest.mark.parametrize(("second", "columns", "lines"), [(("kd", "nkd", PLAIN), 3, 2), (("kd", PLAIN), 4, 2)])
def test_students_with_equally_many_lessons_have_a_line_of_the_reliability_diagram_each(
    tmp_path: Path, second: tuple[str, ...], columns: int, lines: int
) -> None:
    rows = [*(row(loss, 1, 0.6, 0.6) for loss in ("kd", "nkd", PLAIN)), *(row(loss, 1, 0.6, 0.6, out_ch=8) for loss in second)]
    write(tmp_path, [student(), student(8)], rows, open_console())
    with Image.open(tmp_path / "distilled-reliability.png") as picture:
        assert picture.width / picture.height == pytest.approx(3.1 * columns / (3.3 * lines), rel=0.01)


def test_students_with_one_lesson_stand_side_by_side_in_the_reliability_diagram(tmp_path: Path) -> None:
    rows = [row("kd", 1, 0.6, 0.6, out_ch=ch) for ch in (4, 8, 12)]
    write(tmp_path, [student(), student(8), student(12)], rows, open_console())
    with Image.open(tmp_path / "distilled-reliability.png") as picture:
        assert picture.width / picture.height == pytest.approx(3.1 * 3 / 3.3, rel=0.01)


def test_best_lesson_is_by_mean_valid_score_over_seeds() -> None:
    rows = [row("kd", s, v, weight=w) for w, scores in ((0.5, (0.9, 0.1)), (1.0, (0.6, 0.6))) for s, v in enumerate(scores)]
    assert {r.lesson.weight for r in best_lessons(rows) if r.lesson} == {1.0}
    assert len(best_lessons(rows)) == 2


def test_report_leaves_a_table_and_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(loss, seed, 0.5, t) for loss, t in ((PLAIN, 0.5), ("kd", 0.61)) for seed in (1, 2)]
    write(tmp_path, [student()], rows, open_console())
    table = pd.read_csv(tmp_path / "distilled.csv")
    assert list(table["loss"]) == [PLAIN, PLAIN, "kd", "kd"]
    assert list(table["test_ece"]) == [0.05] * 4
    assert (tmp_path / "distilled-reliability.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "distilled-gains.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr()
    assert "+11.00" in shown.out
    assert "python -m nas.export" in shown.err


def test_gain_within_noise_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(PLAIN, 1, 0.5, 0.5), row(PLAIN, 2, 0.5, 0.6), row("kd", 1, 0.5, 0.6), row("kd", 2, 0.5, 0.51)]
    write(tmp_path, [student()], rows, open_console())
    assert "may be noise" in capsys.readouterr().err


def test_summary_says_spread_interval_and_calibration_of_each_lesson(tmp_path: Path) -> None:
    rows = [row(loss, s, 0.5, t) for loss, tests in ((PLAIN, (0.50, 0.60)), ("kd", (0.52, 0.64))) for s, t in enumerate(tests)]
    rows[2] = msgspec.structs.replace(rows[2], test_calibration=Calibration(ece=0.02, nll=0.9, brier=0.4, bins=TESTED.bins))
    write(tmp_path, [student()], rows, open_console())
    plain, kd = pd.read_csv(tmp_path / "distilled-summary.csv").to_dict("records")
    assert math.isnan(plain["gain"])
    assert (kd["test_mean"], kd["test_std"]) == pytest.approx((0.58, 0.12 / math.sqrt(2)), abs=1e-6)
    assert (kd["gain"], kd["gain_pairs"]) == pytest.approx((0.03, 2))
    assert (kd["gain_high"] - kd["gain_low"]) / 2 == pytest.approx(12.706205 * 0.01, abs=1e-6)  # t for one degree of freedom
    assert (kd["test_ece_mean"], kd["ece_gain"]) == pytest.approx((0.035, -0.015))


def test_confidence_that_a_temperature_mends_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    errors = {PLAIN: (0.05, 0.02), "kd": (0.20, 0.02), "nkd": (0.20, 0.18)}
    rows = [
        msgspec.structs.replace(row(loss, 1, 0.5, 0.5), test_calibration=msgspec.structs.replace(TESTED, ece=ece, ece_scaled=scaled))
        for loss, (ece, scaled) in errors.items()
    ]
    write(tmp_path, [student()], rows, open_console())
    shown = capsys.readouterr()
    name = f"{student().id} {label(LessonConfig(loss='kd', weight=1.0))}"
    assert f"confidence is far from accuracy (test ECE): {name} (20.0 %, scaled 2.0 %); divide the logits" in shown.err
    assert "20.00 %   2.00 %" in shown.out


def test_gain_on_valid_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(PLAIN, 1, 0.5, 0.5), row("kd", 1, 0.5, 0.6), row("kd", 1, 0.7, weight=0.5)]
    write(tmp_path, [student()], rows, open_console())
    shown = capsys.readouterr().out
    assert "+10.00" in shown
    assert "+20.00 (valid)" in shown
    assert pd.read_csv(tmp_path / "distilled-summary.csv")["gain_on"].to_list()[1:] == ["test", "valid"]


def test_trainings_of_other_recipes_and_teachers_stay_apart() -> None:
    plain, one = row(PLAIN, 1, 0.5, 0.5), row("kd", 1, 0.5, 0.6)
    assert one.lesson is not None
    fed = msgspec.structs.replace(one, lesson=msgspec.structs.replace(one.lesson, teacher="t", teacher_fed="imagenet-aa"))
    task = msgspec.structs.replace(one, lesson=msgspec.structs.replace(one.lesson, teacher="t"))
    slow = msgspec.structs.replace(task, lr=0.01)
    tuned = msgspec.structs.replace(one, lesson=msgspec.structs.replace(one.lesson, teacher="t", start="run"))
    found = summaries([student()], [plain, task, fed, slow, tuned])
    assert [s.gain is None for s in found] == [True, False, False, True, True]
    names = told_apart(found)
    assert len(set(names)) == len(found)
    assert names[2].endswith("fed as imagenet-aa")
    assert told_apart(found[:2]) == [PLAIN, label(one.lesson)]


def test_seeds_without_a_partner_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, [student()], [row(PLAIN, 1, 0.5, 0.5), row("kd", 1, 0.5, 0.6), row("kd", 2, 0.5, 0.6)], open_console())
    assert "+10.00, 1 pair" in capsys.readouterr().out


def test_lesson_without_plain_beside_it_has_no_gain_and_no_figure_of_gains(tmp_path: Path) -> None:
    write(tmp_path, [student()], [row("kd", 1, 0.5, 0.6)], open_console())
    assert pd.read_csv(tmp_path / "distilled-summary.csv")["gain"].isna().all()
    assert not (tmp_path / "distilled-gains.png").exists()
