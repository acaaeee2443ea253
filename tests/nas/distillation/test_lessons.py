import pytest

from nas.distillation.lesson import LessonConfig, Option, TeacherSpec, lesson_key
from nas.distillation.lessons import label, lessons, options_of
from nas.errors import InvalidConfig, InvalidTeacher, UnknownName
from nas.recipe import Recipe

TEACHER = TeacherSpec(name="file:t (resnet20)", net="resnet20", sha256="ab")


def made(
    *losses: str, settings: dict[str, Option] | None = None, sweep: dict[str, tuple[Option, ...]] | None = None,
    teacher: TeacherSpec | None = TEACHER, online: str = "resnet20",
) -> list[LessonConfig]:  # fmt: skip
    return lessons(losses, settings=settings or {}, sweep=sweep or {}, teacher=teacher, online=online)


def test_options_are_those_of_the_issue() -> None:
    assert options_of("kd") == {"temperature": 4.0}
    assert options_of("dkd") == {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}
    assert options_of("dist") == {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}
    assert options_of("uskd") == {"alpha": 1.0, "beta": 0.1, "mu": 0.005, "ranking": "probability"}
    assert options_of("skd") == {"alpha": None, "temperature": None}
    assert {"nu": 2.0, "temperature": 1.0}.items() <= options_of("bdkd").items()


def test_record_holds_every_option_and_weight() -> None:
    (found,) = made("kd", settings={"temperature": 2.0})
    assert found.options == {"temperature": 2.0}
    assert (found.task_weight, found.weight, found.warmup) == (0.1, 0.9, 0.0)
    assert (found.teacher, found.teacher_sha256, found.online) == (TEACHER.name, "ab", "")


def test_only_lessons_that_use_a_teacher_name_it() -> None:
    plain, uskd, bdkd = made("plain", "uskd", "bdkd")
    assert [x.teacher for x in (plain, uskd, bdkd)] == ["", "", ""]
    assert [x.online for x in (plain, uskd, bdkd)] == ["", "", "resnet20"]


def test_sweep_is_every_combination() -> None:
    found = made("kd", sweep={"temperature": (1.0, 2.0), "weight": (0.5, 1.0, 2.0)})
    assert {(f.options["temperature"], f.weight) for f in found} == {(t, w) for t in (1.0, 2.0) for w in (0.5, 1.0, 2.0)}
    assert len(found) == 6


def test_sweep_goes_to_the_losses_that_know_the_option() -> None:
    found = made("plain", "kd", "uskd", sweep={"temperature": (1.0, 2.0)})
    assert [f.loss for f in found] == ["plain", "kd", "kd", "uskd"]


def test_loss_given_twice_counts_once() -> None:
    assert len(made("kd", "kd")) == 1


@pytest.mark.parametrize(
    ("loss", "settings", "says"),
    [
        ("kd", {"temperature": 0.0}, "temperature must be above 0"),
        ("kd", {"temperature": "hot"}, "temperature of kd must be a number, got 'hot'"),
        ("kd", {"weight": -1.0}, "weight of kd must be a number from 0 on"),
        ("kd", {"warmup": 2.0}, "warmup of kd must be a number from 0 to 1"),
        ("uskd", {"ranking": "best"}, "ranking must be probability or log_softmax"),
        ("uskd", {"ranking": 1.0}, "ranking of uskd must be a word"),
        ("skd", {"alpha": 0.5}, r"skd has no known temperature: .* --set \(nas.distill\) or --loss-set \(nas.search\)"),
        ("kd", {"weight": 0.0, "task_weight": 0.0}, "kd would train on nothing: weight=0 and task_weight=0"),
        ("skd", {"alpha": 1.0, "temperature": 1.0, "weight": 0.0}, "skd would train on nothing: weight=0 and task_weight=1"),
        ("skd", {"alpha": 2.0, "temperature": 1.0}, "alpha must be 0 to 1"),
    ],
)
def test_wrong_value_is_refused_before_training(loss: str, settings: dict[str, Option], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        made(loss, settings=settings)


def test_unknown_loss_and_option_are_suggested() -> None:
    with pytest.raises(UnknownName, match="did you mean 'dkd'"):
        made("ddkd")
    with pytest.raises(UnknownName, match="did you mean 'temperature'"):
        made("kd", settings={"temprature": 2.0})


def test_option_both_set_and_swept_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="temperature is given to --set and to --sweep"):
        made("kd", settings={"temperature": 2.0}, sweep={"temperature": (1.0, 2.0)})


@pytest.mark.parametrize(("loss", "says"), [("kd", "needs --teacher"), ("bdkd", "--online-teacher"), ("landmark", "is for landmarks")])
def test_lesson_that_lacks_something_is_refused(loss: str, says: str) -> None:
    with pytest.raises(InvalidTeacher, match=says):
        made(loss, teacher=None, online="")


def test_label_says_what_is_not_at_its_default() -> None:
    assert [label(x) for x in made("plain", "nkd", "uskd")] == ["plain", "nkd", "uskd"]
    assert label(made("kd", settings={"temperature": 2.0, "weight": 0.5})[0]) == "kd temperature=2 weight=0.5"


def test_key_tells_trainings_apart() -> None:
    lesson, recipe = made("kd")[0], Recipe()
    others = ((lesson, recipe, 2), (lesson, Recipe(lr=0.2), 1), (made("nkd")[0], recipe, 1))
    keys = {lesson_key(lesson, recipe, 1), *(lesson_key(*other) for other in others)}
    assert len(keys) == 4
    assert lesson_key(lesson, recipe, 1) == lesson_key(made("kd")[0], Recipe(), 1)
