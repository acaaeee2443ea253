import dataclasses
import math
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.distillation.lesson import LessonJob, TeacherSpec
from nas.distillation.teacher_logits import AskedLogits
from nas.distillation.teachers import Teacher, named_network, open_teacher
from nas.distillation.teaching import TaughtByItself, TaughtByTeacher, TaughtOnline, Weights, open_lesson, tapped, teach
from nas.errors import Diverged, InvalidTeacher, UnknownName
from nas.jobs import Job, run_job
from nas.losses import BDKD, KD, USKD
from nas.models import build
from nas.models.taps import second_to_last, tap_ch, with_taps
from nas.recipe import Recipe
from nas.tasks import Task
from nas.train import Batch, Epoch, fit, learning_rate
from nas.weights import load, save
from search_spaces import Architecture
from tests.nas.distillation.samples import PLAIN, batches, config, student, weights


def as_if_by_hand(task: Task, teacher: Teacher, module: nn.Module) -> Tensor:
    """Weights after distillation by a loop of its own: 0.3 · cross-entropy + 0.7 · KD at temperature 2, weights decayed."""
    steps = batches(task, 5)
    linear = module[1] if isinstance(module, nn.Sequential) else module
    assert isinstance(linear, nn.Linear)
    groups = [{"params": [linear.weight], "weight_decay": 0.01}, {"params": [linear.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.05)
    for step, (x, y) in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(PLAIN, step, len(steps))
        logits, target = module(x), F.softmax(teacher.logits(x) / 2, 1)
        kd = 4 * F.kl_div(F.log_softmax(logits / 2, 1), target, reduction="batchmean")
        optimizer.zero_grad()
        (0.3 * F.cross_entropy(logits, y) + 0.7 * kd).backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
    return weights(module)


def test_taught_training_equals_a_hand_written_loop(task: Task, spec: TeacherSpec) -> None:
    teacher, ours = open_teacher(spec, task), student()
    lesson = TaughtByTeacher("kd", KD(temperature=2.0), AskedLogits(teacher), Weights(task=0.3, term=0.7))
    fit(ours, task, PLAIN, seed=5, device="cpu", lesson=lesson)
    assert torch.allclose(weights(ours), as_if_by_hand(task, teacher, student()), rtol=1e-4, atol=1e-6)  # float32, fused optimizer


def test_lesson_without_weight_trains_as_none(task: Task, spec: TeacherSpec) -> None:
    taught, plain = student(), student()
    recipe = msgspec.structs.replace(PLAIN, crop_pixels=2, flip=True, cutout_pixels=3)
    lesson = TaughtByTeacher("kd", KD(), AskedLogits(open_teacher(spec, task)), Weights(term=0.0))
    fit(taught, task, recipe, seed=5, device="cpu", lesson=lesson)
    fit(plain, task, recipe, seed=5, device="cpu")
    assert torch.allclose(weights(taught), weights(plain), atol=1e-7)


def test_skd_without_its_soft_part_trains_as_none_smoothed_labels_and_all(task: Task, spec: TeacherSpec) -> None:
    taught, plain, recipe = student(), student(), msgspec.structs.replace(PLAIN, label_smoothing=0.1)
    teach(taught, LessonJob(config=config("skd", options={"alpha": 0.0, "temperature": 2.0}), teacher=spec), task, recipe, seed=5)
    fit(plain, task, recipe, seed=5)
    assert torch.equal(weights(taught), weights(plain))


def test_skd_is_its_two_shares(task: Task, spec: TeacherSpec) -> None:
    job = LessonJob(config=config("skd", options={"alpha": 0.7, "temperature": 2.0}), teacher=spec)
    ours = student()
    teach(ours, job, task, PLAIN, seed=5)
    assert torch.allclose(weights(ours), as_if_by_hand(task, open_teacher(spec, task), student()), rtol=1e-4, atol=1e-6)  # as above


def test_every_term_is_reported_as_it_enters_the_loss_and_the_tasks_before_its_weight(task: Task, spec: TeacherSpec) -> None:
    seen: list[Epoch] = []
    lesson = TaughtByTeacher("kd", KD(), AskedLogits(open_teacher(spec, task)), Weights(task=0.1, term=0.9))
    done = fit(student(), task, PLAIN, seed=5, device="cpu", lesson=lesson, on_epoch=seen.append)
    assert set(done.terms) == {"task", "kd"}
    for i, epoch in enumerate(seen):
        assert epoch.terms == {name: means[i] for name, means in done.terms.items()}
        assert epoch.loss == pytest.approx(0.1 * epoch.terms["task"] + epoch.terms["kd"], rel=1e-5)


def test_teacher_is_never_changed(task: Task, spec: TeacherSpec) -> None:
    teacher = open_teacher(spec, task)
    before = {k: v.clone() for k, v in teacher.module.state_dict().items()}
    fit(student(), task, PLAIN, seed=5, device="cpu", lesson=TaughtByTeacher("kd", KD(), AskedLogits(teacher), Weights()))
    assert all(torch.equal(v, before[k]) for k, v in teacher.module.state_dict().items())


@pytest.mark.parametrize(("warmup", "want"), [(0.0, [2.0] * 4), (0.5, [1.0, 2.0, 2.0, 2.0]), (1.0, [0.5, 1.0, 1.5, 2.0])])
def test_weight_grows_over_the_warm_up(warmup: float, want: list[float]) -> None:
    empty = torch.zeros(0)
    steps = [Batch(x=empty, y=empty, logits=empty, features=(), step=i, steps=4) for i in range(4)]
    assert [Weights(term=2.0, warmup=warmup).at(b) for b in steps] == want


def test_weak_classifier_trains_along_and_stays_outside(task: Task, arch: Architecture) -> None:
    feature_ch = tap_ch(arch, second_to_last(arch))
    loss = USKD(feature_ch, 3)
    network = build(with_taps(arch, second_to_last(arch)), generator=torch.Generator().manual_seed(0))
    before = loss.weak.weight.detach().clone()
    fit(network, task, PLAIN, seed=5, device="cpu", lesson=TaughtByItself("uskd", loss, Weights()))
    assert not torch.equal(loss.weak.weight, before)
    assert list(network.state_dict()) == list(build(arch, device="meta").state_dict())


def test_online_teacher_and_student_learn_as_two_loops_side_by_side(task: Task) -> None:
    ours, our_teacher = student(), student(1)
    lesson = TaughtOnline("bdkd", BDKD(nu=2.0), our_teacher, F.cross_entropy, Weights())
    done = fit(ours, task, PLAIN, seed=5, device="cpu", lesson=lesson)
    assert set(done.terms) == {"task", "bdkd", "teacher"}

    one, two = student(), student(1)
    optimizers = []
    for network in (one, two):
        linear = network[1]
        assert isinstance(linear, nn.Linear)
        groups = [{"params": [linear.weight], "weight_decay": 0.01}, {"params": [linear.bias], "weight_decay": 0.0}]
        optimizers.append(torch.optim.SGD(groups, lr=0.05))
    steps = batches(task, 5)
    for step, (x, y) in enumerate(steps):
        s, t = one(x), two(x)
        student_part, _ = BDKD(nu=2.0)(s, t.detach(), y)
        _, teacher_part = BDKD(nu=2.0)(s.detach(), t, y)
        for optimizer, loss in zip(optimizers, (F.cross_entropy(s, y) + student_part, F.cross_entropy(t, y) + teacher_part), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(PLAIN, step, len(steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert torch.allclose(weights(ours), weights(one), rtol=1e-4, atol=1e-6)
    assert torch.allclose(weights(our_teacher), weights(two), rtol=1e-4, atol=1e-6)


def test_online_teachers_score_is_told_when_its_training_is_done(task: Task) -> None:
    teacher = student(1)
    lesson = TaughtOnline("bdkd", BDKD(nu=2.0), teacher, F.cross_entropy, Weights())
    fit(student(), task, PLAIN, seed=5, device="cpu", lesson=lesson)
    split = task.load("valid")
    right = teacher(task.normaliser()(split.x)).argmax(1) == split.y
    assert lesson.story(task) == f"its online teacher scores {float(right.float().mean()):.3f} on valid"


def test_loss_that_is_not_finite_names_its_term(task: Task, spec: TeacherSpec) -> None:
    class Broken(nn.Module):
        def forward(self, student: Tensor, teacher: Tensor, y: Tensor) -> Tensor:
            return student.sum() * math.nan

    lesson = TaughtByTeacher("broken", Broken(), AskedLogits(open_teacher(spec, task)), Weights())
    with pytest.raises(Diverged, match=r"loss is not finite \(broken\).*lower the weight of the distillation"):
        fit(student(), task, PLAIN, seed=5, device="cpu", lesson=lesson)


@pytest.mark.parametrize("loss", ["plain", "kd", "uskd", "bdkd"])
def test_job_with_a_lesson_leaves_the_students_weights_alone_in_the_file(
    task: Task, spec: TeacherSpec, arch: Architecture, tmp_path: Path, loss: str
) -> None:
    lesson = LessonJob(config=config(loss, online="resnet20" if loss == "bdkd" else ""), teacher=spec, cache=str(tmp_path / "kept"))
    path = tmp_path / "w.safetensors"
    job = Job(key="k", arch=arch, recipe=Recipe(epochs=1, batch=32), seed=1, weights=str(path), test=True, lesson=lesson)
    outcome = run_job(job, task)
    assert outcome.error == ""
    assert load(tmp_path / "w.safetensors").keys() == build(arch, device="meta").state_dict().keys()
    assert set(outcome.terms) == {"plain": set(), "kd": {"task", "kd"}, "uskd": {"task", "uskd"}, "bdkd": {"task", "bdkd", "teacher"}}[loss]
    assert outcome.test_calibration is not None
    assert outcome.test_calibration.ece_scaled is not None


def test_job_starts_from_given_weights(task: Task, arch: Architecture, tmp_path: Path) -> None:
    trained = build(arch, generator=torch.Generator().manual_seed(3))
    save(trained.state_dict(), tmp_path / "start.safetensors")
    lesson = LessonJob(config=config("plain", start="run"))
    still = Recipe(epochs=1, batch=32, lr=1e-30, ema_decay=0.0, momentum=0.0, weight_decay=0.0)
    start, end = str(tmp_path / "start.safetensors"), str(tmp_path / "w.safetensors")
    run_job(Job(key="k", arch=arch, recipe=still, seed=1, weights=end, init=start, lesson=lesson), task)
    found = load(tmp_path / "w.safetensors")
    assert all(torch.allclose(found[k], v, atol=1e-20) for k, v in trained.named_parameters())


def test_same_seed_gives_the_same_weights(task: Task, arch: Architecture, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        lesson = LessonJob(config=config("bdkd", online="resnet20"))
        run_job(Job(key="k", arch=arch, recipe=Recipe(epochs=1, batch=48), seed=1, weights=str(tmp_path / name), lesson=lesson), task)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def kept_name(task: Task, arch: Architecture, folder: Path, spec: TeacherSpec, recipe: Recipe, seed: int = 1) -> str:
    """What the file of a teacher's outputs in a training of one step is called."""
    lesson = open_lesson(LessonJob(config=config("kd"), teacher=spec, cache=str(folder)), arch, task, recipe, seed)
    assert lesson is not None
    lesson.prepare(torch.device("cpu"), precision="fp32", steps=1, batch=2)
    split = task.load("train")
    x = task.normaliser()(split.x[:2])
    lesson.terms(Batch(x=x, y=split.y[:2], logits=torch.zeros(2, 3), features=(), step=0, steps=1))
    (path,) = folder.iterdir()
    return path.name


OTHER = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "image_hw": (8, 8), "columns": (2, 1, 0), "sha256": "another"}
SEEN = {"crop_pixels": 3, "cutout_pixels": 3, "flip": True, "batch": 24, "epochs": 3}
UNSEEN = {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.0, "label_smoothing": 0.2, "ema_decay": 0.5, "clip_norm": 1.0}


@pytest.mark.parametrize("field", [*OTHER, *SEEN, "seed", "data"])
def test_outputs_are_kept_apart_by_all_that_they_follow_from(
    task: Task, spec: TeacherSpec, arch: Architecture, tmp_path: Path, field: str
) -> None:
    other_task = dataclasses.replace(task, data_sha256="another") if field == "data" else task
    other_spec = msgspec.structs.replace(spec, **{f: v for f, v in OTHER.items() if f == field})
    recipe = msgspec.structs.replace(PLAIN, **{f: v for f, v in SEEN.items() if f == field})
    one = kept_name(task, arch, tmp_path / "a", spec, PLAIN)
    assert kept_name(other_task, arch, tmp_path / "b", other_spec, recipe, seed=2 if field == "seed" else 1) != one


@pytest.mark.parametrize("field", [*UNSEEN, "name", "weights"])
def test_outputs_are_shared_by_trainings_that_see_the_same_images(
    task: Task, spec: TeacherSpec, arch: Architecture, tmp_path: Path, field: str
) -> None:
    copy = shutil.copy(spec.weights, tmp_path / "copy.safetensors")
    other_spec = msgspec.structs.replace(spec, **{f: v for f, v in {"name": "b", "weights": str(copy)}.items() if f == field})
    recipe = msgspec.structs.replace(PLAIN, **{f: v for f, v in UNSEEN.items() if f == field})
    assert kept_name(task, arch, tmp_path / "b", other_spec, recipe) == kept_name(task, arch, tmp_path / "a", spec, PLAIN)


def test_lesson_that_lacks_its_teacher_is_refused(task: Task, arch: Architecture) -> None:
    with pytest.raises(InvalidTeacher, match="--loss kd needs --teacher"):
        open_lesson(LessonJob(config=config("kd")), arch, task, PLAIN, 0)
    with pytest.raises(InvalidTeacher, match="name it with --online-teacher"):
        open_lesson(LessonJob(config=config("bdkd")), arch, task, PLAIN, 0)


def test_unknown_online_teacher_is_named(task: Task) -> None:
    with pytest.raises(UnknownName, match="did you mean 'resnet20'"):
        named_network("resnet_20", task)


def test_only_a_lesson_that_reads_features_taps_the_student(arch: Architecture) -> None:
    assert [len(tapped(arch, config(loss)).taps) for loss in ("plain", "kd", "bdkd", "uskd")] == [0, 0, 0, 1]
