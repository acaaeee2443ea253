"""Full trainings that another run has already: a network trained alike on the same images is the same training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nas.config import RunConfig
from nas.errors import InvalidConfig, RunConflict
from nas.finals import final_seed
from nas.outputs import data_sha256
from nas.store import Candidate, RunFolder, load_run, write_atomic
from nas.tasks.task import Task
from nas.weights import InvalidWeights, load

if TYPE_CHECKING:
    from nas.bench import Bench

__all__ = ["reusable", "take_over"]


def reusable(config: RunConfig, task: Task, out: Path, free: frozenset[str] = frozenset()) -> dict[str, Candidate]:
    """The full trainings of the run that ``--reuse`` names, by architecture id; {} where it names none.

    ``free``: fields that a budget decides; how long full trainings are cannot be among them, or hardly any would be equal.

    Raises:
        NasError: it names no run, this run itself, or one whose settings or images are others.
    """
    if config.reuse is None:
        return {}
    path = Path(config.reuse)
    if "final_epochs" in free:
        raise InvalidConfig("--reuse with --budget needs --final-epochs too: trainings of another length are not equal")
    if path.resolve() == out.resolve():
        raise InvalidConfig(f"--reuse {path} is the run itself: name another")
    run = load_run(path)
    theirs, ours = _settings(run.config), _settings(config)
    if other := [name for name in ours if theirs[name] != ours[name]]:
        raise RunConflict(f"--reuse {path} trained otherwise: its {', '.join(other)} is not this run's; leave it out, or set the same")
    if data_sha256(path) != task.data_sha256:
        raise RunConflict(f"--reuse {path} was trained on other images than those of {task.data}; leave it out")
    seed = final_seed(config)
    return {r.id: r for r in run.rows if _is_full(r) and r.seed == seed}


def take_over(wanted: Mapping[str, str], epochs: int, bench: "Bench", folder: RunFolder) -> RunFolder:
    """The run with the rows that ``bench.reuses`` has of the ``wanted`` networks (id -> label as a baseline) for so many epochs.

    Their weights are copied where they are still there; a row whose weights are gone counts as well: it has been scored. One whose weights
    are damaged does not.
    """
    if bench.config.reuse is None:
        return folder
    mine = {r.id for r in folder.rows if r.stage == "final" and r.status == "trained"}
    known = {i: bench.reuses[i] for i in wanted if i not in mine and i in bench.reuses}
    rows = {}
    for i, row in known.items():
        moved = msgspec.structs.replace(row, baseline=wanted[i], weights=f"models/{i}.safetensors")
        if row.epochs == epochs and _copied(Path(bench.config.reuse) / row.weights, folder.path / moved.weights, bench):
            rows[i] = moved
    folder.append(*rows.values())
    lengths = ", ".join(sorted({f"{r.epochs}" for r in known.values() if r.epochs != epochs}))
    others = f"; others there have {lengths} epochs, and here it is {epochs}" if lengths else ""
    before = len(bench.reuses.keys() & mine & wanted.keys())
    earlier = f", {before} before" if before else ""
    bench.console.say(f"reused   {len(rows)} full trainings of {bench.config.reuse}{earlier}{others}")
    return RunFolder(path=folder.path, rows=(*folder.rows, *rows.values()))


def _copied(theirs: Path, ours: Path, bench: "Bench") -> bool:
    """Whether the training can be taken over: its weights are whole, and copied, or gone."""
    if not theirs.is_file():
        return True
    try:
        load(theirs)
    except InvalidWeights as error:
        bench.console.warn(f"trained again, not reused: {error}")
        return False
    write_atomic(ours, theirs.read_bytes())
    return True


def _is_full(row: Candidate) -> bool:
    """Whether it began anew, unlike what a refinement goes on with."""
    return row.stage == "final" and row.status == "trained" and row.score_source == "full" and not row.parent_id


def _settings(config: RunConfig) -> dict[str, object]:
    """What a full training of a network follows from, beside the data and the epochs, which each row has."""
    split = config.seed if config.data_seed is None else config.data_seed
    fields = {name: getattr(config, name) for name in ("task", "train_images", "image_size", "seed")}
    return {**fields, "split's seed": split, "recipe": msgspec.structs.replace(config.recipe, epochs=10**6)}
