"""What a refinement begins with: a model of a run, a published network, or one of torchvision's with its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nas.chosen import chosen
from nas.config import RunConfig
from nas.errors import InvalidConfig, NasError, UnknownName
from nas.store import Run
from nas.tasks.task import Task
from nas.weights import InvalidWeights, load, read_state
from search_spaces.architecture import Architecture
from search_spaces.baselines import BASELINES, baseline, published

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Seed", "named_seed", "seed_of_run", "with_splits_of"]

State = Mapping[str, "Tensor"]
IMAGENET_CLASSES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Seed:
    """An architecture for the task and what is known of its weights; ``state`` lacks or misfits tensors where it was not trained on it.

    ``is_of_space``: it comes from a search, in the space of which others can be looked for.
    """

    arch: Architecture
    origin: str
    state: State | None
    is_trained: bool
    is_of_space: bool = False


def seed_of_run(run: Run, model: str | None, task: Task) -> Seed:
    """A trained model of a run by its id or the beginning of it; without one the most accurate member of the run's front.

    On other data than the run's it has yet to learn the classes.

    Raises:
        NasError: no such model, one without weights, or a run without a front.
    """
    row = chosen(run, [model])[0] if model else max(chosen(run, []), key=lambda r: r.score or 0.0)
    path = run.path / row.weights
    if not path.is_file():
        raise NasError(
            f"{row.id} of {run.path} has no weights to begin with ({path} is not there): make them again with "
            f"python -m nas.search --config {run.path}/config.json --out NEW, or name another seed with --seed-model"
        )
    is_foreign = not _is_same(task.data, run.config.data) and task.data_sha256 != _noted_sha256(run)
    origin = f"{row.baseline or row.id} of {run.path}" + (f", which was trained on {run.config.data}," if is_foreign else "")
    seed = _fitted(row.arch, load(path), task, origin, knows_classes=not is_foreign)
    return replace(seed, is_of_space=any(r.number is not None for r in run.rows) and not (run.path / "refine.json").exists())


def with_splits_of(run: Run, config: RunConfig) -> RunConfig:
    """The configuration with the data split as in the run, where it is of the same data, whatever its own seed.

    Other splits would score and validate on images that the run's networks were trained on.
    """
    own = run.config.seed if run.config.data_seed is None else run.config.data_seed
    return msgspec.structs.replace(config, data_seed=own if own != config.seed and _is_same(config.data, run.config.data) else None)


def named_seed(spec: str, task: Task) -> Seed:
    """``NAME[@WIDTH]`` of a published network, which has no weights yet, or ``torchvision:NAME[:FILE]``, which has.

    FILE holds the state dict (.safetensors, or a .pth without code); without one torchvision downloads its default.

    Raises:
        UnknownName: no such network.
        InvalidSpace: the width is no positive number.
        InvalidWeights: the file or the download gives no state dict of that network.
    """
    kind, _, rest = spec.partition(":")
    if kind == "torchvision" and rest:
        name, _, file = rest.partition(":")
        arch, state = _torchvision(name, Path(file) if file else None, task)
        # torchvision's own weights know ImageNet's classes; those of a file with another number of outputs may know the data's
        return _fitted(arch, state, task, spec, knows_classes=arch.head.outputs != IMAGENET_CLASSES)
    if (name := spec.partition("@")[0]) not in BASELINES:
        raise UnknownName.among("published network (or torchvision:NAME)", name, BASELINES)
    name, factor = published(spec)
    arch = baseline(name, width=factor, input_chw=task.input_chw, outputs=task.head.outputs)
    return Seed(arch=arch, origin=spec, state=None, is_trained=False)


def _fitted(arch: Architecture, state: State, task: Task, origin: str, *, knows_classes: bool = True) -> Seed:
    """The seed at the task's input and number of classes, which it may have yet to learn."""
    if arch.input_chw[0] != task.input_chw[0]:
        raise InvalidConfig(f"{origin} takes images of {arch.input_chw[0]} channels, and those of {task.data} have {task.input_chw[0]}")
    head = msgspec.structs.replace(arch.head, outputs=task.head.outputs)
    fitted = msgspec.structs.replace(arch, input_chw=task.input_chw, head=head, taps=())
    is_trained = knows_classes and fitted.head == arch.head and fitted.input_chw == arch.input_chw
    known = {key: t for key, t in state.items() if is_trained or not key.startswith("head.out.")}
    return Seed(arch=fitted, origin=origin, state=known, is_trained=is_trained)


def _torchvision(name: str, file: Path | None, task: Task) -> tuple[Architecture, State]:
    from nas.models.pretrained import TORCHVISION, from_torchvision

    if name not in TORCHVISION:
        raise UnknownName.among("torchvision network", name, TORCHVISION)
    arch, network = from_torchvision(name, read_state(file) if file else _downloaded(name), input_chw=task.input_chw)
    return arch, network.state_dict()


def _downloaded(name: str) -> State:
    from nas.models.torchvision_weights import published_network

    try:
        return published_network(name).state_dict()
    except InvalidWeights as error:
        raise InvalidWeights(f"{error}; or say torchvision:{name}:FILE") from error


def _is_same(data: str, other: str) -> bool:
    """Whether two names of data mean the same, as far as names tell."""
    (kind, _, path), (other_kind, _, other_path) = data.partition(":"), other.partition(":")
    return kind == other_kind and Path(path).expanduser().resolve() == Path(other_path).expanduser().resolve()


def _noted_sha256(run: Run) -> str | None:
    """The hash of what a run was trained on."""
    path = run.path / "environment.json"
    found: str | None = msgspec.json.decode(path.read_bytes()).get("data", {}).get("sha256") if path.exists() else None
    return found
