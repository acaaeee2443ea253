"""The figure of gains: what it says where, and that all of it can be read."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from nas.distillation.figure import gains_figure
from nas.distillation.lesson import PLAIN, LessonConfig, TeacherSpec
from nas.distillation.lessons import lessons
from nas.distillation.report import figure_names, summaries
from nas.store import Candidate
from search_spaces import baseline

FILE = "file:cifar10_resnet56.safetensors (resnet56)"
TAUGHT = ("kd", "dkd", "dist", "nkd")


def lesson(loss: str, teacher: str = FILE) -> LessonConfig:
    (found,) = lessons([loss], settings={}, sweep={}, teacher=TeacherSpec(name=teacher, net="resnet56"), online="resnet20")
    return found


def drawn(*wanted: LessonConfig, fewer: int = 3) -> tuple[Figure, list[str]]:
    """The figure of these lessons for a found network with five seeds and a published one with three; and its names."""
    students, rows = [], []
    for name, network, seeds in (("mnasnet_a1", "", 5), ("mobilenet_v2", "mobilenet_v2 x0.35", fewer)):
        arch = baseline(name, width=0.35, input_chw=(3, 32, 32), outputs=10)
        students.append(Candidate(stage="final", status="trained", arch=arch, seed=0, baseline=network))
        for i, config in enumerate((LessonConfig(loss=PLAIN), *wanted)):
            rows += [
                Candidate(
                    stage="distill", status="trained", arch=arch, seed=s, baseline=network, epochs=1, lesson=config, score=0.7,
                    test_score=0.7 + 0.01 * i * (s + 1), key=f"{i}{s}",
                )
                for s in range(seeds)
            ]  # fmt: skip
    summed = [s for s in summaries(students, rows) if s.gain]
    names, caption = figure_names(summed)
    figure = gains_figure(summed, names, caption=caption)
    figure.canvas.draw()
    plt.close(figure)
    return figure, names


STUDY = tuple(lesson(loss) for loss in (*TAUGHT, "uskd", "bdkd"))


def test_labels_stand_once_on_the_left_and_n_in_each_panel() -> None:
    left, right = drawn(*STUDY)[0].axes
    assert [t.get_text() for t in left.get_yticklabels()] == [*TAUGHT, "uskd", "bdkd"]
    assert not any(t.get_visible() and t.label1.get_visible() for t in right.yaxis.get_major_ticks())
    assert [[t.get_text() for t in axes.texts] for axes in (left, right)] == [["n=5"] * 6, ["n=3"] * 6]


def test_panels_have_one_scale_that_holds_every_difference() -> None:
    left, right = drawn(*STUDY)[0].axes
    assert left.get_xlim() == right.get_xlim()
    low, high = left.get_xlim()
    assert low < 0
    assert high > 100 * 0.01 * 6 * 5  # the last lesson's fifth seed


@pytest.mark.parametrize(("fewer", "intervals"), [(2, 0), (3, 6)])
def test_two_seeds_have_no_interval_which_would_hide_all_else(fewer: int, intervals: int) -> None:
    _, right = drawn(*STUDY, fewer=fewer)[0].axes
    assert sum(line.get_marker() == "None" and len(np.unique(line.get_ydata())) == 1 for line in right.lines) == intervals


def test_teacher_of_all_is_said_once_below() -> None:
    figure, _ = drawn(*STUDY)
    assert f"teachers: {FILE} for kd, dkd, dist, nkd; resnet20 trained along for bdkd" in figure.get_supxlabel().replace("\n", " ")


def test_teachers_of_one_loss_are_told_apart_by_the_labels() -> None:
    figure, names = drawn(lesson("kd"), lesson("kd", "train:resnet20"), lesson("dkd"))
    assert names[:3] == [f"kd, {FILE}", "kd, train:resnet20", f"dkd, {FILE}"]
    assert "teacher" not in figure.get_supxlabel()


@pytest.mark.parametrize("wanted", [STUDY, STUDY[:1], (*STUDY, lesson("kd", "train:resnet20"))], ids=["study", "one", "two teachers"])
def test_every_text_lies_inside_the_figure_and_panels_stay_wide(wanted: tuple[LessonConfig, ...]) -> None:
    figure, _ = drawn(*wanted)
    whole = figure.bbox
    texts = [*(t for axes in figure.axes for t in (axes.title, *axes.texts, *axes.get_yticklabels())), *figure.texts]
    boxes = [t.get_window_extent() for t in texts if t.get_text() and t.get_visible()]
    assert all(whole.x0 <= b.x0 and b.x1 <= whole.x1 and whole.y0 <= b.y0 and b.y1 <= whole.y1 for b in boxes)
    assert all(axes.get_window_extent().width > 300 for axes in figure.axes)  # pixels; a title of 30 characters takes 230
