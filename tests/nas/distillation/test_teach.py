from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nas.distillation.lesson import LessonConfig, LessonJob, TeacherSpec
from nas.distillation.teachers import named_network, resolve
from nas.distillation.teaching import open_lesson, teach
from nas.errors import InvalidConfig, InvalidTeacher, UnknownName
from nas.evaluate import evaluate
from nas.losses import skd_loss, uskd_loss
from nas.models import build
from nas.models.features import FEATURES, Feature
from nas.models.reference import reference
from nas.models.taps import second_to_last, with_taps
from nas.tasks import Task, open_task
from nas.train import fit, learning_rate
from nas.weights import save
from search_spaces import Architecture
from tests.nas.distillation.samples import PLAIN, batches, config, student, weights


@pytest.mark.parametrize(("name", "loss"), [("resnet20", "dist"), ("vit_tiny", "kd"), ("vit_tiny", "bdkd")])
def test_reference_network_is_taught_by_losses_of_logits(task: Task, spec: TeacherSpec, name: str, loss: str) -> None:
    network = named_network(name, task, generator=torch.Generator().manual_seed(0))
    before = weights(network)
    job = LessonJob(config=LessonConfig(loss=loss, online="resnet20" if loss == "bdkd" else ""), teacher=spec)
    done = teach(network, job, task, msgspec.structs.replace(PLAIN, epochs=1), seed=0)
    assert loss in done.terms
    assert not torch.equal(weights(network), before)


def test_network_that_is_no_architecture_learns_from_its_own_feature_as_in_a_hand_written_loop(task: Task) -> None:
    def deeper() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Linear(8, 3))

    ours, one = deeper(), deeper()
    job = LessonJob(config=LessonConfig(loss="uskd", options={"mu": 0.5}))
    done = teach(ours, job, task, PLAIN, seed=5, feature=Feature(part="1"))
    assert set(done.terms) == {"task", "uskd"}

    weak, weak_weights = nn.Linear(8, 3), torch.randn(3, 8, generator=torch.Generator().manual_seed(5)) * 0.01
    weak.load_state_dict({"weight": weak_weights, "bias": torch.zeros(3)})
    layers = [one[1], one[2], weak]
    groups = [
        {"params": [layer.weight for layer in layers], "weight_decay": 0.01},
        {"params": [layer.bias for layer in layers], "weight_decay": 0.0},
    ]
    optimizer, steps = torch.optim.SGD(groups, lr=0.05), batches(task, 5)
    for step, (x, y) in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(PLAIN, step, len(steps))
        feature = one[1](x.flatten(1))
        logits = one[2](feature)
        loss = F.cross_entropy(logits, y) + uskd_loss(logits, weak(feature), y, mu=0.5)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    assert torch.allclose(weights(ours), weights(one), rtol=1e-4, atol=1e-6)  # float32, fused optimizer


@pytest.mark.parametrize("name", ["resnet20", "vit_tiny", "mobilenet_v3_small_minimal@0.1"])
def test_network_is_taught_by_itself_through_its_map_or_token(task: Task, name: str) -> None:
    one, two, none = (named_network(name, task, generator=torch.Generator().manual_seed(0)) for _ in range(3))
    names, recipe = list(one.state_dict()), msgspec.structs.replace(PLAIN, epochs=1)
    done = teach(one, LessonJob(config=config("uskd")), task, recipe, seed=0, feature=FEATURES.get(name))
    teach(two, LessonJob(config=config("uskd", options={"mu": 0.0})), task, recipe, seed=0, feature=FEATURES.get(name))
    fit(none, task, recipe, seed=0)
    assert set(done.terms) == {"task", "uskd"}
    assert not torch.equal(weights(one), weights(none))
    assert not torch.equal(weights(one), weights(two))  # the weak part reaches the network, through the feature alone
    assert list(one.state_dict()) == names


def test_architectures_own_feature_is_that_of_its_tap(task: Task, arch: Architecture) -> None:
    ours, tapped_one = build(arch, generator=torch.Generator().manual_seed(0)), build(
        with_taps(arch, second_to_last(arch)), generator=torch.Generator().manual_seed(0)
    )
    job = LessonJob(config=config("uskd"))
    teach(ours, job, task, PLAIN, seed=3)
    fit(tapped_one, task, PLAIN, seed=3, lesson=open_lesson(job, arch, task, PLAIN, 3))
    assert torch.equal(weights(ours), weights(tapped_one))


def test_signal_student_is_taught_by_a_signal_teacher_on_an_npz_of_signals(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(96) % 2
    phase = 2 * np.pi * (np.arange(64) * (y[:, None] + 1) / 16 + rng.random((96, 1)))  # two frequencies, I and Q
    x = np.stack([np.cos(phase), np.sin(phase)], 1)[:, :, None].astype(np.float32)
    np.savez(tmp_path / "iq.npz", x_train=x[:64], y_train=y[:64], x_test=x[64:], y_test=y[64:])
    task = open_task("classify", f"npz:{tmp_path / 'iq.npz'}")
    assert task.input_chw == (2, 1, 64)
    teacher = named_network("clst_r", task, generator=torch.Generator().manual_seed(0))
    recipe = msgspec.structs.replace(PLAIN, epochs=12, batch=16)
    fit(teacher, task, recipe, seed=0)
    save(teacher.state_dict(), tmp_path / "clst.safetensors")
    spec = resolve(f"file:{tmp_path / 'clst.safetensors'}", task, arch="clst_r", norm="task")
    student = named_network("kd_cnn_r", task, generator=torch.Generator().manual_seed(1))
    done = teach(student, LessonJob(config=config("skd", options={"alpha": 0.5, "temperature": 2.0}), teacher=spec), task, recipe, seed=0)
    assert done.terms["skd"][-1] < 0.5 * done.terms["skd"][0]
    assert evaluate(student, task, "test") == 1.0


@pytest.mark.parametrize(
    ("config", "feature", "error", "why"),
    [
        (LessonConfig(loss="uskd"), None, InvalidConfig, "uskd reads a feature map: name the part"),
        (LessonConfig(loss="uskd"), Feature(part="layer2"), UnknownName, "part of the network"),
        (LessonConfig(loss="uskd", options={"mue": 1.0}), Feature(part="1"), UnknownName, "did you mean 'mu'"),
        (LessonConfig(loss="uskdd"), Feature(part="1"), UnknownName, "did you mean 'uskd'"),
        (LessonConfig(loss="uskd", options={"weight": 2.0}), Feature(part="1"), InvalidConfig, "weight is a field of LessonConfig"),
        (LessonConfig(loss="uskd", weight=-1.0), Feature(part="1"), InvalidConfig, "weight of uskd must be a number from 0 on, got -1"),
        (LessonConfig(loss="uskd", warmup=5.0), Feature(part="1"), InvalidConfig, "warmup of uskd must be a number from 0 to 1"),
        (LessonConfig(loss="uskd", weight=0.0, task_weight=0.0), Feature(part="1"), InvalidConfig, "would train on nothing"),
        (LessonConfig(loss="uskd", start="run"), Feature(part="1"), InvalidConfig, "is for networks of a run"),
        (LessonConfig(loss="plain", options={"mu": 1.0}), None, InvalidConfig, "mu is an option of losses, and plain has none"),
        (LessonConfig(loss="plain"), Feature(part="1"), InvalidConfig, "the feature 1 is for uskd; plain reads none"),
        (LessonConfig(loss="skd"), None, InvalidTeacher, "needs --teacher"),
        (LessonConfig(loss="landmark"), None, InvalidTeacher, "is for landmarks"),
    ],
)  # fmt: skip
def test_lesson_that_cannot_be_taught_is_refused(
    task: Task, config: LessonConfig, feature: Feature | None, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        teach(student(), LessonJob(config=config), task, PLAIN, seed=0, feature=feature)


def test_option_without_a_default_must_be_set(task: Task, spec: TeacherSpec) -> None:
    with pytest.raises(InvalidConfig, match="--loss skd has no known alpha"):
        teach(student(), LessonJob(config=LessonConfig(loss="skd"), teacher=spec), task, PLAIN, seed=0)


@pytest.mark.parametrize("name", ["kd_cnn_r", "kd_mobilenet_r"])
def test_signal_student_comes_nearer_to_a_signal_teacher(name: str) -> None:
    g = torch.Generator().manual_seed(0)
    teacher, pupil = (reference(n, outputs=4, in_ch=2, generator=g) for n in ("clst_r", name))
    x, y = torch.randn(32, 2, 64, generator=g), torch.randint(4, (32,), generator=g)
    with torch.no_grad():
        target = teacher.eval()(x)
    optimizer = torch.optim.SGD(pupil.parameters(), lr=0.02)
    losses = []
    for _ in range(10):
        loss = skd_loss(pupil(x), target, y, alpha=1.0, temperature=2.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
