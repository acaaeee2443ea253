"""A training between two epochs, on disk: all that it needs to go on as if it had never been broken off."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from nas.recipe import Recipe
from nas.tasks.task import Task
from nas.weights import InvalidWeights, load, save

__all__ = ["Keeper", "Midway", "Progress", "Training", "epochs_kept"]

SHARE = 0.02  # of the time, for keeping


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which training a file is of. ``device`` is a type, such as "cpu": each draws its random numbers in its own way."""

    data_sha256: str
    recipe: Recipe
    seed: int
    device: str

    @classmethod
    def of(cls, task: Task, recipe: Recipe, seed: int, device: torch.device) -> "Training":
        """What ``nas.train.fit`` is asked for."""
        return cls(data_sha256=task.data_sha256, recipe=recipe, seed=seed, device=device.type)


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mean losses and (where they are asked for) validation scores of the epochs done; ``seconds`` with scoring, and training alone."""

    losses: tuple[float, ...] = ()
    scores: tuple[float, ...] = ()
    seconds: float = 0.0
    trained_seconds: float = 0.0


class Midway:
    """What changes in a training, by reference: weights, their moving average, the optimizer's moments, the states of randomness."""

    def __init__(self, live: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        self._live, self._average, self._optimizer, self._generator = live, average, optimizer, generator

    def keep(self, path: Path, training: Training, progress: Progress) -> None:
        """Writes it, all or nothing."""
        notes = {"training": msgspec.json.encode(training).decode(), "progress": msgspec.json.encode(progress).decode()}
        save(dict(self._tensors()), path, metadata=notes)

    def take_up(self, path: Path, training: Training) -> Progress:
        """Puts everything where it was when the file was written.

        Raises:
            InvalidWeights: the file is damaged, or of another training or network; nothing is changed then.
        """
        progress, found = _progress(path, training), load(path)
        kept = {key: (t.shape, t.dtype) for key, t in found.items() if not key.startswith("moments/")}
        if kept != {key: (t.shape, t.dtype) for key, t in (*self._weights(), *self._random())}:
            raise InvalidWeights(f"{path}: a training of another network; remove it to train from the beginning")
        with torch.no_grad():
            for key, tensor in self._weights():
                tensor.copy_(found[key])
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": self._moments(found)})
        self._generator.set_state(found["random/training"])
        torch.set_rng_state(found["random/cpu"])
        if self._generator.device.type == "cuda":
            torch.cuda.set_rng_state(found["random/cuda"], self._generator.device)
        return progress

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._weights()
        for number, moments in self._optimizer.state_dict()["state"].items():
            yield from ((f"moments/{number}/{name}", t) for name, t in moments.items() if t is not None)
        yield from self._random()

    def _random(self) -> Iterator[tuple[str, Tensor]]:
        yield "random/training", self._generator.get_state()
        yield "random/cpu", torch.get_rng_state()
        if self._generator.device.type == "cuda":
            yield "random/cuda", torch.cuda.get_rng_state(self._generator.device)

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        for group, module in (("live", self._live), ("average", self._average)):
            yield from ((f"{group}/{name}", t) for name, t in module.state_dict().items())

    def _moments(self, found: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """The optimizer's state by the numbers of its parameters, in their layout in memory, on which its fused steps rely."""
        owners = [p for group in self._optimizer.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for key in (k for k in found if k.startswith("moments/")):
            _, number, name = key.split("/")
            tensor, owner = found[key], owners[int(number)]
            moments.setdefault(int(number), {})[name] = torch.empty_like(owner).copy_(tensor) if tensor.shape == owner.shape else tensor
        return moments


class Keeper:
    """Keeps a training in a file: after its first epoch, and then as often as takes 2 % of the time.

    A file that cannot be written does not end the training: ``on_unkept`` hears of it, and no more is tried.
    """

    def __init__(self, path: Path, *, on_unkept: Callable[[OSError], object], clock: Callable[[], float] = time.perf_counter) -> None:
        self.path, self._on_unkept, self._clock = path, on_unkept, clock
        self._rests_until = float("-inf")

    def take_up(self, midway: Midway, training: Training) -> Progress:
        """Puts the training where the file has it, if there is one.

        Raises:
            InvalidWeights: see ``Midway.take_up``.
        """
        return midway.take_up(self.path, training) if self.path.exists() else Progress()

    def keep(self, midway: Midway, training: Training, progress: Progress) -> None:
        """Hears that an epoch is done."""
        began = self._clock()
        if began < self._rests_until:
            return
        try:
            midway.keep(self.path, training, progress)
        except OSError as error:
            self._rests_until = float("inf")
            self._on_unkept(error)
            return
        ended = self._clock()
        self._rests_until = ended + (ended - began) / SHARE


def epochs_kept(path: Path, training: Training) -> int:
    """How many epochs of this training the file holds; 0 where there is none.

    Raises:
        InvalidWeights: the file is damaged, or of another training.
    """
    return len(_progress(path, training).losses) if path.exists() else 0


def _progress(path: Path, training: Training) -> Progress:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            noted: dict[str, str] = file.metadata() or {}
        there = msgspec.json.decode(noted["training"], type=Training)
        progress = msgspec.json.decode(noted["progress"], type=Progress)
    except (OSError, SafetensorError, KeyError, msgspec.DecodeError) as error:
        raise InvalidWeights(f"{path}: no training to go on with ({error})") from error
    if there != training:
        theirs, ours = msgspec.structs.asdict(there), msgspec.structs.asdict(training)
        what = next(name for name in ours if theirs[name] != ours[name])
        raise InvalidWeights(f"{path}: a training with another {what}")
    return progress
