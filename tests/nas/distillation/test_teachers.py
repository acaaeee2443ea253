import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.models import squeezenet1_1

from nas.distillation.lessons import lessons
from nas.distillation.teachers import NORMS, named_network, open_teacher, resolve, some_of_valid
from nas.errors import InvalidConfig, InvalidTeacher, UnknownName
from nas.models import build
from nas.models.reference import reference
from nas.recipe import Recipe
from nas.store import load_run
from nas.tasks import Task, open_task
from nas.train import fit
from nas.weights import load, save
from search_spaces import baseline
from tests.nas.hubs import empty_hub, publish
from tests.nas.tasks.samples import pixels, write_npz


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return open_task("classify", f"npz:{write_npz(tmp_path_factory.mktemp('data') / 'a.npz')}")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save(reference("resnet20", outputs=3, generator=torch.Generator().manual_seed(0)).state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


def raw(task: Task) -> Tensor:
    return task.load("valid").x


@pytest.mark.parametrize("norm", ["task", *NORMS])
def test_file_is_fed_as_it_was_trained(task: Task, weights: Path, norm: str) -> None:
    teacher = open_teacher(resolve(f"file:{weights}", task, arch="resnet20", norm=norm), task)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in {**NORMS, "task": (task.mean, task.std)}[norm])
    network = reference("resnet20", outputs=3)
    network.load_state_dict(load(weights))
    with torch.no_grad():
        want = network.eval()((raw(task).float() / 255 - mean) / std)
    assert torch.allclose(teacher.logits(task.normaliser()(raw(task))), want, rtol=1e-4, atol=1e-5)  # float32, in another order


def test_normalisation_is_found_by_what_scores_best(tmp_path: Path) -> None:
    """A network that knows its classes only from pixels normalised by the task's own figures, far from ImageNet's."""
    x, y = pixels(60)
    dark = (x // 8).astype(np.uint8)
    np.savez(tmp_path / "dark.npz", x_train=dark, y_train=y, x_test=dark, y_test=y)
    task = open_task("classify", f"npz:{tmp_path / 'dark.npz'}")
    network = build(baseline("mnasnet_small", width=0.1, input_chw=task.input_chw, outputs=3), generator=torch.Generator().manual_seed(0))
    fit(network, task, Recipe(epochs=8, batch=16, crop_pixels=0, lr=0.05), seed=0, device="cpu")
    save(network.state_dict(), tmp_path / "w.safetensors")
    x_valid, y_valid = task.normaliser()(raw(task)), task.load("valid").y

    def score(norm: str) -> float:
        spec = resolve(f"file:{tmp_path / 'w.safetensors'}", task, arch="mnasnet_small@0.1", norm=norm)
        return task.score(open_teacher(spec, task).logits(x_valid), y_valid)

    assert score("auto") == max(score(norm) for norm in ("task", *NORMS))


def test_tied_normalisations_leave_the_tasks_own(task: Task, tmp_path: Path) -> None:
    """A network whose answer is the same whatever it is fed."""
    state = reference("resnet20", outputs=3).state_dict()
    save({k: torch.zeros_like(t) if k.startswith("linear") else t for k, t in state.items()}, tmp_path / "w.safetensors")
    assert resolve(f"file:{tmp_path / 'w.safetensors'}", task, arch="resnet20").mean is None


def test_lessons_of_one_file_fed_in_two_ways_are_two(task: Task, weights: Path) -> None:
    specs = {norm: resolve(f"file:{weights}", task, arch="resnet20", norm=norm) for norm in ("task", *NORMS)}
    (task_fed,), *others = [lessons(["kd"], settings={}, sweep={}, teacher=spec) for spec in specs.values()]
    assert task_fed.teacher_fed == ""
    assert [one.teacher_fed.partition("-")[0] for (one,) in others] == list(NORMS)
    assert len({task_fed.teacher_fed, *(one.teacher_fed for (one,) in others)}) == 1 + len(NORMS)


def test_teacher_is_frozen_and_stays_in_evaluation(task: Task, weights: Path) -> None:
    teacher = open_teacher(resolve(f"file:{weights}", task, arch="resnet20", norm="task"), task)
    before = {k: v.clone() for k, v in teacher.module.state_dict().items()}
    teacher.module.train()  # what a careless wrapper does
    logits = teacher.logits(task.normaliser()(raw(task)))
    assert not logits.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in teacher.module.state_dict().items())
    assert not any(p.requires_grad for p in teacher.module.parameters())


def test_images_are_resized_to_what_a_teacher_was_made_for(task: Task, finished: Path) -> None:
    run = load_run(finished)
    small = open_task("classify", run.config.data, image_size=None)
    wanted = run.front["id"].iloc[0]
    teacher = open_teacher(resolve(f"run:{finished}/{wanted}", small), small)
    seen: list[tuple[int, ...]] = []
    teacher.module.register_forward_pre_hook(lambda _module, inputs: seen.append(tuple(inputs[0].shape)))
    teacher.logits(torch.randn(2, 3, 24, 24))
    assert seen == [(2, 3, 16, 16)]


def test_resized_images_are_another_way_to_be_fed(finished: Path, tmp_path: Path) -> None:
    wanted = load_run(finished).front["id"].iloc[0]
    large = ten_classes(tmp_path / "data", ["0", "1", "2"])
    assert large.input_chw[1:] == (32, 32)
    assert resolve(f"run:{finished}/{wanted}", large).fed != ""


def test_found_network_teaches_with_its_runs_weights(finished: Path) -> None:
    run = load_run(finished)
    task = open_task("classify", run.config.data)
    row = next(r for r in run.rows if r.stage == "final")
    teacher = open_teacher(resolve(f"run:{finished}/{row.id[:8]}", task), task)
    split = task.load("valid")
    score = task.score(teacher.logits(task.normaliser()(split.x)), split.y)
    assert score == pytest.approx(row.score or 0.0, abs=1e-9)
    assert teacher.spec.fed == ""  # as its run's own images, which these are


def test_run_with_other_classes_is_refused(finished: Path, tmp_path: Path) -> None:
    x, y = pixels(60)
    np.savez(tmp_path / "two.npz", x_train=x[y < 2], y_train=y[y < 2], x_test=x[y < 2], y_test=y[y < 2])
    two = open_task("classify", f"npz:{tmp_path / 'two.npz'}")
    wanted = load_run(finished).front["id"].iloc[0]
    with pytest.raises(InvalidTeacher, match=r"knows 3 classes and .* has 2"):
        resolve(f"run:{finished}/{wanted}", two)


def test_run_whose_weights_are_gone_is_refused_before_training(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    row = next(r for r in load_run(tmp_path / "run").rows if r.stage == "final")
    (tmp_path / "run" / row.weights).unlink()
    task = open_task("classify", load_run(finished).config.data)
    with pytest.raises(InvalidTeacher, match="its weights are gone"):
        resolve(f"run:{tmp_path / 'run'}/{row.id}", task)


NORM = '{"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}'


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", '{"models": []}', '{"input": {}, "output": {"classes": ["0", "1", "2"]}}', "\udce9",
        f'{{"input": {{"preprocess": {NORM}}}, "output": {{"classes": 3}}}}',
        f'{{"input": {{"preprocess": {NORM.replace("0.2]", "0]")}}}, "output": {{"classes": ["0", "1", "2"]}}}}',
        f'{{"input": {{"preprocess": {NORM.replace(", 0.2]", "]")}}}, "output": {{"classes": ["0", "1", "2"]}}}}',
    ],
)  # fmt: skip
def test_damaged_manifest_of_a_teachers_run_is_named(finished: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(finished, tmp_path / "run")
    run = load_run(tmp_path / "run")
    (run.path / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InvalidTeacher, match=r"run/manifest\.json: (damaged|mean and std must)"):
        resolve(f"run:{run.path}/{run.front['id'].iloc[0]}", open_task("classify", run.config.data))


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("resnet50", UnknownName, "unknown teacher 'resnet50'"),
        ("torchvison:resnet50", UnknownName, "did you mean 'torchvision:NAME'"),
        ("torchvision:", InvalidConfig, "needs a name behind the colon"),
        ("torchvision:resnet5", UnknownName, "did you mean 'resnet50'"),
        ("torchvision:resnet50", InvalidTeacher, "knows 1000 classes and .* has 3"),
        ("run:abc", InvalidConfig, "say run:RUN/ID"),
        ("file:w.safetensors", InvalidConfig, "needs --teacher-arch"),
    ],
)
def test_spec_that_cannot_be_is_refused_in_a_sentence(task: Task, spec: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        resolve(spec, task)


def test_arch_belongs_to_a_file(task: Task) -> None:
    with pytest.raises(InvalidConfig, match="--teacher-arch belongs to file:WEIGHTS"):
        resolve("run:a/b", task, arch="resnet20")


def test_file_of_another_network_is_refused(task: Task, weights: Path) -> None:
    with pytest.raises(InvalidTeacher, match="holds no resnet32"):
        resolve(f"file:{weights}", task, arch="resnet32")


def test_file_of_other_classes_is_refused(task: Task, tmp_path: Path) -> None:
    save(reference("resnet20", outputs=10).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(InvalidTeacher, match="other classes"):
        resolve(f"file:{tmp_path / 'w.safetensors'}", task, arch="resnet20")


def test_unknown_network_of_a_file_is_named(task: Task, weights: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'resnet20'"):
        resolve(f"file:{weights}", task, arch="resnet_20")


def test_unknown_normalisation_is_named(task: Task, weights: Path) -> None:
    with pytest.raises(UnknownName, match="unknown normalisation 'imgnet'; did you mean 'imagenet'"):
        resolve(f"file:{weights}", task, arch="resnet20", norm="imgnet")


def test_download_that_fails_is_an_error_of_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of torchvision for a task with ImageNet's class names, on a computer without network."""
    from torchvision import models

    names = models.get_model_weights("squeezenet1_1").DEFAULT.meta["categories"]
    x = np.zeros((2000, 8, 8, 3), np.uint8)
    x[:, 0, 0, 0], x[:, 0, 0, 1] = np.arange(2000) % 251, np.arange(2000) // 251
    y = np.arange(2000) % 1000
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    task = open_task("classify", f"npz:{tmp_path / 'a.npz'}")
    assert len(task.classes) == len(names)

    empty_hub(tmp_path, monkeypatch)
    with pytest.raises(InvalidTeacher, match="could not be fetched"):
        resolve("torchvision:squeezenet1_1", task)


def ten_classes(folder: Path, names: list[str]) -> Task:
    """A task of images in folders by class."""
    g = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in names:
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(g.integers(0, 255, (32, 32, 3), np.uint8)).save(folder / split / name / f"{i}.png")
    return open_task("classify", f"folder:{folder}", image_size=32)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return empty_hub(tmp_path, monkeypatch)


def test_imagenet_teacher_in_the_cache_teaches_those_of_its_classes_that_the_data_has(
    tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import models

    weights = models.get_model_weights("squeezenet1_1").DEFAULT
    torch.manual_seed(0)
    network = models.squeezenet1_1(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    publish(tmp_path / "w.pth", hub, monkeypatch)
    task = ten_classes(tmp_path / "data", ["garbage_truck", "Tench", "golf ball"])
    teacher = open_teacher(resolve("torchvision:squeezenet1_1", task), task)
    assert teacher.spec.image_hw == (224, 224)
    categories = [c.lower() for c in weights.meta["categories"]]
    columns = [categories.index(c.lower().replace("_", " ")) for c in task.classes]
    x = task.load("valid").x
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in NORMS["imagenet"])
    seen = F.interpolate((x.float() / 255 - mean) / std, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        want = network(seen)[:, columns]
    assert torch.allclose(teacher.logits(task.normaliser()(x)), want, rtol=1e-3, atol=1e-4)  # normalised before or after resizing


def test_class_that_an_imagenet_teacher_lacks_is_named(tmp_path: Path) -> None:
    task = ten_classes(tmp_path / "data", ["tench", "widget"])
    with pytest.raises(InvalidTeacher, match="but not just one 'widget'"):
        resolve("torchvision:squeezenet1_1", task)


def test_damaged_weights_in_the_cache_are_an_error_of_the_teacher(tmp_path: Path, hub: Path) -> None:
    from torchvision import models

    (hub / models.get_model_weights("squeezenet1_1").DEFAULT.url.rpartition("/")[2]).write_bytes(b"PK half a file")
    task = ten_classes(tmp_path / "data", ["tench", "golf ball"])
    with pytest.raises(InvalidTeacher, match="damaged in the cache"):
        resolve("torchvision:squeezenet1_1", task)


def test_other_weights_of_a_torchvision_network_have_another_hash(tmp_path: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = ten_classes(tmp_path / "data", ["tench", "golf ball"])
    hashes = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        torch.save(squeezenet1_1(weights=None).state_dict(), tmp_path / "w.pth")
        file = publish(tmp_path / "w.pth", hub, monkeypatch)
        hashes.append(resolve("torchvision:squeezenet1_1", task).sha256)
        assert hashes[-1] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(("name", "params"), [("resnet20", 269_722 - 7 * 65), ("mobilenet_v2@0.5", None), ("mnasnet_a1", None)])
def test_networks_by_name_fit_the_task(task: Task, name: str, params: int | None) -> None:
    network = named_network(name, task, generator=torch.Generator().manual_seed(0)).eval()
    assert network(torch.randn(2, *task.input_chw)).shape == (2, 3)
    assert params is None or sum(p.numel() for p in network.parameters()) == params


def test_validation_images_for_a_look_are_taken_from_all_classes(task: Task) -> None:
    assert set(some_of_valid(task).y.tolist()) == set(task.load("valid").y.tolist())
