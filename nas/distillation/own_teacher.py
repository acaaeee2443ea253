"""A teacher that the run trains itself: its weights, kept in the run, and beside them a record of what they score."""

from pathlib import Path

import msgspec
import torch
from torch import nn

from latency.console import Console
from nas.calibration import Calibration
from nas.cores import torch_device
from nas.distillation.lesson import lesson_key, sha256_of
from nas.distillation.teacher_files import load_into
from nas.distillation.teachers import named_network
from nas.errors import Diverged, InvalidTeacher, Stopped
from nas.evaluate import judge
from nas.midway import Keeper, Training, epochs_kept
from nas.recipe import Recipe
from nas.samplers import proposal_seed
from nas.store import Run, write_atomic
from nas.tasks.task import Task
from nas.train import Epoch, fit
from nas.weights import InvalidWeights, read_state, save

__all__ = ["TeacherRecord", "trained_teacher"]

TEACHER_SEED = 2_000_000_011  # of a teacher that is trained here: none of the students'


class TeacherRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the weights with this hash score on valid, and their calibration there."""

    net: str
    epochs: int
    score: float
    calibration: Calibration
    sha256: str


def trained_teacher(run: Run, name: str, task: Task, recipe: Recipe, console: Console, *, only_kept: bool = False) -> Path:
    """The weights of a teacher trained by ``recipe``; those of an earlier time where all that determines them is equal.

    Interrupted, its training goes on after the last epoch that was kept. The record lies beside the weights, with the suffix .json.

    Raises:
        Diverged: see ``nas.train.fit``.
        InvalidWeights: what was kept of its training is of another network; remove the file.
        Stopped: there are none, or none that can be read, and with ``only_kept`` nothing is trained or written.
    """
    path = run.path.resolve() / "teachers" / f"{name}-{lesson_key(name, recipe, run.config.seed, task.data_sha256)}.safetensors"
    seed = proposal_seed(run.config.seed, TEACHER_SEED)
    network = named_network(name, task, generator=torch.Generator().manual_seed(seed))
    if path.exists():
        try:
            load_into(network, read_state(path), name, str(path))
        except (InvalidWeights, InvalidTeacher) as error:
            if only_kept:
                raise Stopped(f"the teacher {name} cannot be read ({error}); leave out --show to train it again") from error
            console.warn(f"the teacher {name} that was trained here cannot be read, and is trained again: {error}")
        else:
            if not only_kept:
                _forget_midway(path)
            figures = "" if only_kept else f": {_figures(_record(path, name, network, task, recipe))}"
            console.say(f"teacher  {name} was trained here before{figures}")
            return path
    elif only_kept:
        raise Stopped(f"{run.path} has nothing of this yet: its teacher {name} is not trained; leave out --show to do that")
    _train(network, name, task, recipe, seed, path, console)
    return path


def _train(network: nn.Module, name: str, task: Task, recipe: Recipe, seed: int, path: Path, console: Console) -> None:
    path.parent.mkdir(exist_ok=True)
    place, midway = torch_device(), _midway(path)
    done = _epochs_kept(midway, Training.of(task, recipe, seed, place), name, console)
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}"
    goes_on = f", {done} of them done before" if done else ""
    console.say(
        f"teacher  training {name} for {epochs} first{goes_on}; it is kept in {path.parent}, and if interrupted goes on after the last "
        "epoch that was kept"
    )

    def unkept(error: OSError) -> None:
        console.warn(f"the teacher's training cannot be kept on the way, and interrupted it begins anew: {error}")

    keeper = Keeper(midway, on_unkept=unkept)
    with console.progress(recipe.epochs, "teacher's epochs") as tick:
        if done:
            tick(advance=done, earlier=True)

        def told(epoch: Epoch) -> None:
            tick(f"valid {epoch.score:.3f}")

        try:
            result = fit(network, task, recipe, seed=seed, device=place, on_epoch=told, keeper=keeper)
        except Diverged:
            midway.unlink(missing_ok=True)  # it would only diverge again
            raise
    save(network.state_dict(), path)
    record = TeacherRecord(net=name, epochs=recipe.epochs, score=result.score, calibration=result.calibration, sha256=sha256_of(path))
    _write(record, path)
    _forget_midway(path)
    console.say(f"teacher  {name} is trained: {_figures(record)}; wrote {path} and its figures, {path.with_suffix('.json').name}")


def _midway(path: Path) -> Path:
    """Where the training of these weights is kept, on this kind of device by this torch: each draws random numbers in its own way."""
    return path.with_name(f"midway-{path.stem}-{torch_device().type}-{torch.__version__.partition('+')[0]}.safetensors")


def _forget_midway(path: Path) -> None:
    """Removes what was kept of the training whose weights are in ``path``, on whatever device."""
    for midway in path.parent.glob(f"midway-{path.stem}-*.safetensors"):
        midway.unlink(missing_ok=True)


def _epochs_kept(midway: Path, training: Training, name: str, console: Console) -> int:
    """How far an earlier process came; what cannot be gone on with is removed, and said."""
    try:
        return epochs_kept(midway, training)
    except InvalidWeights as error:
        console.warn(f"the training of the teacher {name} that was broken off cannot go on, and begins anew: {error}")
        midway.unlink()
        return 0


def _record(path: Path, name: str, network: nn.Module, task: Task, recipe: Recipe) -> TeacherRecord:
    """The record of these weights; written anew where there is none, or one of others."""
    file, sha256 = path.with_suffix(".json"), sha256_of(path)
    try:
        found = msgspec.json.decode(file.read_bytes(), type=TeacherRecord)
        if found.sha256 == sha256:
            return found
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        pass  # not written yet when the process ended, or damaged: what it says can be found again
    judged = judge(network, task, "valid", device=torch_device())
    record = TeacherRecord(net=name, epochs=recipe.epochs, score=judged.score, calibration=judged.calibration, sha256=sha256)
    _write(record, path)
    return record


def _write(record: TeacherRecord, weights: Path) -> None:
    write_atomic(weights.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(record), indent=1))


def _figures(record: TeacherRecord) -> str:
    return f"valid {record.score:.3f}, calibration error {100 * record.calibration.ece:.1f} %"
