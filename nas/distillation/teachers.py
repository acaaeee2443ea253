"""Teachers: a spec such as ``torchvision:resnet50`` becomes a frozen network that fits the task, or is refused."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.chosen import chosen
from nas.distillation.lesson import TeacherSpec, lesson_key, sha256_of
from nas.distillation.teacher_files import load_into
from nas.distillation.timm_networks import timm_config, timm_network
from nas.errors import InvalidConfig, InvalidTeacher, UnknownName
from nas.jobs import open_config_task
from nas.models import build
from nas.models.reference import REFERENCES, SIGNALS, reference
from nas.models.torchvision_weights import published_network, published_weights
from nas.store import load_run
from nas.tasks.task import Split, Task
from nas.weights import InvalidWeights, read_state, state_sha256
from search_spaces import BASELINES, Architecture, baseline

__all__ = ["KINDS", "NORMS", "Teacher", "named_baseline", "named_network", "normalisation", "open_teacher", "resolve", "some_of_valid"]

NORMS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # mean and deviation of 0..1
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
WORDNET = re.compile(r"n\d{8}")
TRIED = 1000  # validation images on which normalisations are compared
KINDS = ("torchvision:NAME", "timm:NAME", "run:RUN/ID", "file:WEIGHTS", "train:NAME")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Teacher:
    """A frozen network in eval mode that is fed the student's own images, normalised over to what it was trained on."""

    spec: TeacherSpec
    module: nn.Module
    scale: Tensor  # (1, C, 1, 1)
    shift: Tensor

    @property
    def params(self) -> int:
        """Trainable numbers of the network."""
        return sum(p.numel() for p in self.module.parameters())

    def to(self, device: torch.device) -> "Teacher":
        """The same teacher on ``device``."""
        module = self.module.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
        return Teacher(spec=self.spec, module=module, scale=self.scale.to(device), shift=self.shift.to(device))

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K), float32, of images (N, C, H, W) as the task's normaliser gives them; always in evaluation mode."""
        self.module.eval()
        x = torch.addcmul(self.shift, x, self.scale)
        if self.spec.image_hw and tuple(x.shape[2:]) != self.spec.image_hw:
            x = F.interpolate(x, size=self.spec.image_hw, mode="bilinear", antialias=True)
        found: Tensor = self.module(x)
        return (found[:, list(self.spec.columns)] if self.spec.columns else found).float()


def resolve(spec: str, task: Task, *, arch: str | None = None, norm: str = "auto") -> TeacherSpec:
    """The teacher that ``spec`` names (one of ``KINDS`` but train:, which is trained first), checked against the task.

    ``arch`` names the network of a file; ``norm`` is how its images were normalised: task, one of ``NORMS``, or auto, which takes
    what scores best on validation images, the task's own where others are no better.

    Raises:
        InvalidTeacher: other classes or channels, weights that do not fit, a download that fails.
        InvalidConfig, UnknownName, InvalidWeights: a spec, name or file that cannot be read.
    """
    kind, _, rest = spec.partition(":")
    makers: Mapping[str, Callable[[], TeacherSpec]] = {
        "torchvision": lambda: _torchvision(rest, task),
        "timm": lambda: _timm(rest, task),
        "run": lambda: _of_run(rest, task),
        "file": lambda: _of_file(rest, task, arch, norm),
    }
    if kind not in makers:
        raise UnknownName.among("teacher", spec, KINDS)
    if not rest:
        raise InvalidConfig(f"teacher {spec!r} needs a name behind the colon")
    if arch and kind != "file":
        raise InvalidConfig(f"--teacher-arch belongs to file:WEIGHTS, and {spec} says itself what it is")
    found = makers[kind]()
    return msgspec.structs.replace(found, fed=_fed(found, task))


def _fed(spec: TeacherSpec, task: Task) -> str:
    own = (spec.mean or task.mean, spec.std or task.std, spec.image_hw or task.input_chw[1:]) == (task.mean, task.std, task.input_chw[1:])
    key = lesson_key(spec.mean, spec.std, spec.image_hw, spec.columns)
    return "" if own and not spec.columns else f"{normalisation(spec)}-{key}"


def normalisation(spec: TeacherSpec) -> str:
    """How a teacher's images are normalised, in a word: task, one of ``NORMS``, or own (figures of another run's or network's)."""
    if spec.mean is None:
        return "task"
    return next((name for name, norm in NORMS.items() if norm == (spec.mean, spec.std)), "own")


def open_teacher(spec: TeacherSpec, task: Task) -> Teacher:
    """The teacher, frozen, on the CPU. Weights are loaded into exactly the network that the spec names.

    Raises:
        InvalidTeacher: weights that do not fit.
    """
    module = _empty(spec, task)
    if spec.weights:
        load_into(module, read_state(spec.weights), spec.net, spec.weights)
    module.eval().requires_grad_(False)
    own_mean, own_std = (torch.tensor(v, dtype=torch.float64) for v in (task.mean, task.std))
    mean, std = (torch.tensor(v or own.tolist(), dtype=torch.float64) for v, own in ((spec.mean, own_mean), (spec.std, own_std)))
    scale, shift = own_std / std, (own_mean - mean) / std
    return Teacher(spec=spec, module=module, scale=scale.float().view(1, -1, 1, 1), shift=shift.float().view(1, -1, 1, 1))


def named_network(name: str, task: Task, *, generator: torch.Generator | None = None) -> nn.Module:
    """A fresh reference network (``resnet56``) or baseline (``mobilenet_v2``, ``mobilenet_v2@0.5``) for a task.

    Raises:
        UnknownName: neither.
        InvalidTeacher: a network for signals, and the task has images.
    """
    if name in SIGNALS and task.input_chw[1] != 1:
        size = f"{task.input_chw[1]}x{task.input_chw[2]}"
        raise InvalidTeacher(f"{name} is for signals, of height 1, and {task.data} has images of {size}; give signals as (N, C, 1, L)")
    if name in REFERENCES:
        return reference(name, outputs=len(task.classes), in_ch=task.input_chw[0], input_hw=task.input_chw[1:], generator=generator)
    return build(named_baseline(name, task), generator=generator)


def named_baseline(name: str, task: Task) -> Architecture:
    """A baseline for a task, at the width behind its @, else 1.

    Raises:
        UnknownName: no baseline of that name, or no width.
    """
    found = re.fullmatch(r"(\w+?)(?:@(\d+(?:\.\d+)?))?", name)
    if not found or found[1] not in BASELINES:
        raise UnknownName.among("network", name, [*REFERENCES, *BASELINES, "or a baseline with its width, as mobilenet_v2@0.5"])
    return baseline(found[1], width=float(found[2] or 1), input_chw=task.input_chw, outputs=len(task.classes))


def _empty(spec: TeacherSpec, task: Task) -> nn.Module:
    """The spec's network; torchvision's and timm's have their weights already."""
    kind, _, name = spec.net.partition(":")
    if kind == "torchvision":
        with _as_teachers():
            return published_network(name)
    if kind == "timm":
        return timm_network(name)
    return build(spec.arch) if spec.arch else named_network(spec.net, task)


@contextmanager
def _as_teachers() -> Iterator[None]:
    """torchvision's weights that cannot be had are an error of the teacher."""
    try:
        yield
    except InvalidWeights as error:
        raise InvalidTeacher(f"{error}; or use file:WEIGHTS") from error


def _torchvision(name: str, task: Task) -> TeacherSpec:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise UnknownName.among("torchvision classifier", name, known)
    weights = models.get_model_weights(name).DEFAULT
    columns = _columns(f"torchvision:{name}", weights.meta["categories"], task)
    how = weights.transforms()
    spec = _pretrained(f"torchvision:{name}", task, tuple(how.mean), tuple(how.std), int(how.crop_size[0]))
    with _as_teachers():
        sha256 = sha256_of(published_weights(name))
    return msgspec.structs.replace(spec, columns=columns, sha256=sha256)


def _timm(name: str, task: Task) -> TeacherSpec:
    config = timm_config(name)
    _columns(f"timm:{name}", range(config.num_classes), task)  # timm has no names of classes
    spec = _pretrained(f"timm:{name}", task, tuple(config.mean), tuple(config.std), int(config.input_size[1]))
    return msgspec.structs.replace(spec, sha256=state_sha256(timm_network(name).state_dict()))


def _pretrained(name: str, task: Task, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> TeacherSpec:
    if task.input_chw[0] != len(mean):
        raise InvalidTeacher(f"{name} is fed {len(mean)} channels, and {task.data} has {task.input_chw[0]}")
    if task.train.x.dtype != "uint8":
        raise InvalidTeacher(f"{name} wants pixels of 0 to 255, and {task.data} holds numbers in units of its own: train a teacher on it")
    return TeacherSpec(name=name, net=name, mean=mean, std=std, image_hw=(size, size))


def _of_run(rest: str, task: Task) -> TeacherSpec:
    path, _, wanted = rest.rpartition("/")
    if not path:
        raise InvalidConfig(f"teacher run:{rest}: say run:RUN/ID, such as run:results/demo/3f2a")
    run = load_run(path)
    (row,) = chosen(run, [wanted])
    other = _preprocessing(Path(path), row.arch.input_chw[0]) or open_config_task(run.config)
    columns = _columns(f"run:{rest}", other.classes, task)
    if row.arch.input_chw[0] != task.input_chw[0]:
        raise InvalidTeacher(f"run:{rest} is fed {row.arch.input_chw[0]} channels, and {task.data} has {task.input_chw[0]}")
    own = (other.mean, other.std) != (task.mean, task.std)
    weights = run.path / row.weights
    if not weights.exists():
        raise InvalidTeacher(f"run:{rest}: its weights are gone ({weights}); search again, or name another")
    return TeacherSpec(
        name=f"run:{run.path.resolve().name}/{row.name}", net="found", arch=row.arch, weights=str(weights.resolve()),
        sha256=sha256_of(weights), image_hw=row.arch.input_chw[1:], columns=columns,
        mean=other.mean if own else None, std=other.std if own else None,
    )  # fmt: skip


class _Norm(msgspec.Struct, frozen=True, kw_only=True):
    mean: tuple[float, ...]
    std: tuple[float, ...]


class _Input(msgspec.Struct, frozen=True, kw_only=True):
    preprocess: _Norm


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    classes: tuple[str, ...]


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):  # what is read of it: the rest is for those who run the networks
    input: _Input
    output: _Output


@dataclass(frozen=True, kw_only=True, slots=True)
class _Preprocessing:
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _preprocessing(run: Path, channels: int) -> _Preprocessing | None:
    """What a finished run's manifest says of classes and normalisation; None where it is not finished.

    Raises:
        InvalidTeacher: the manifest is damaged.
    """
    path = run / "manifest.json"
    if not path.exists():
        return None
    try:
        noted = msgspec.json.decode(path.read_bytes(), type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidTeacher(f"{path}: damaged ({error}); without it the run's config.json tells the same") from error
    how = noted.input.preprocess
    if not len(how.mean) == len(how.std) == channels or not all(s > 0 for s in how.std):
        raise InvalidTeacher(
            f"{path}: mean and std must have a figure for each of {channels} channels, those of std above 0, got {how.mean} and {how.std}; "
            "without it the run's config.json tells the same"
        )
    return _Preprocessing(classes=noted.output.classes, mean=how.mean, std=how.std)


def _of_file(rest: str, task: Task, arch: str | None, norm: str) -> TeacherSpec:
    if arch is None:
        raise InvalidConfig(f"file:{rest} needs --teacher-arch: one of {', '.join([*REFERENCES, *BASELINES])}")
    path = Path(rest).expanduser().resolve()
    plain = TeacherSpec(name=f"file:{Path(rest).name} ({arch})", net=arch, weights=str(path), sha256="")
    open_teacher(plain, task)  # the name, the file and that they fit
    return _normalised(msgspec.structs.replace(plain, sha256=sha256_of(path)), task, norm)


def _normalised(spec: TeacherSpec, task: Task, norm: str) -> TeacherSpec:
    if norm not in ("auto", "task", *NORMS):
        raise UnknownName.among("normalisation", norm, ["auto", "task", *NORMS])
    fits = task.train.x.dtype == "uint8" and task.input_chw[0] == 3
    if norm in NORMS and not fits:
        raise InvalidTeacher(f"--teacher-norm {norm} is for RGB images of 0 to 255, which {task.data} does not hold; use task")
    kept = {"task": spec} | {name: msgspec.structs.replace(spec, mean=mean, std=std) for name, (mean, std) in NORMS.items() if fits}
    if norm != "auto":
        return kept[norm]
    part = some_of_valid(task)
    x = task.normaliser()(part.x)
    return max(kept.values(), key=lambda s: task.score(open_teacher(s, task).logits(x), part.y))


def some_of_valid(task: Task, most: int = TRIED) -> Split:
    """At most ``most`` validation images, evenly from all of them (a folder's lie class by class): a large teacher is slow."""
    whole = task.load("valid")
    every = -(-len(whole) // most)
    return Split(x=whole.x[::every], y=whole.y[::every])


def _columns(name: str, classes: Sequence[object], task: Task) -> tuple[int, ...]:
    """Which of a teacher's outputs are the task's classes, in their order; () where its outputs are just these.

    Classes are told by name, without regard to capitals and underscores; numbers, and ImageNet's folder names, say nothing but how many.

    Raises:
        InvalidTeacher: it lacks one.
    """
    theirs, ours = ([str(c).lower().replace("_", " ") for c in names] for names in (classes, task.classes))
    nameless = any(all(c.isdigit() for c in names) for names in (theirs, ours)) or all(WORDNET.fullmatch(c) for c in ours)
    if theirs == ours or (nameless and len(theirs) == len(ours)):
        return ()
    lacking = [task.classes[i] for i, c in enumerate(ours) if theirs.count(c) != 1]
    if nameless or lacking:
        lack = "" if nameless else f", but not just one {lacking[0]!r}"
        raise InvalidTeacher(f"{name} knows {len(classes)} classes{lack} and {task.data} has {len(task.classes)}: it cannot teach them")
    return tuple(theirs.index(c) for c in ours)
