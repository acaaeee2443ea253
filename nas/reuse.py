"""Full trainings that another run has already: a published network trained alike on the same images is the same training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from nas.config import RunConfig
from nas.errors import InvalidConfig, RunConflict
from nas.finals import final_seed
from nas.outputs import refuse_other_data
from nas.store import Candidate, RunFolder, load_run, write_atomic
from nas.tasks.task import Task
from nas.weights import load

if TYPE_CHECKING:
    from nas.bench import Bench

__all__ = ["reusable", "take_over"]

def reusable(config: RunConfig, task: Task, out: Path) -> dict[str, Candidate]:
    """The full trainings of the run that ``--reuse`` names, by architecture id; {} where it names none.

    Raises:
        NasError: it names no run, this run itself, or one whose settings or images are others.
    """
    if config.reuse is None:
        return {}
    path = Path(config.reuse)
    if path.resolve() == out.resolve():
        raise InvalidConfig(f"--reuse {path} is the run itself: name another")
    run = load_run(path)
    theirs, ours = _settings(run.config), _settings(config)
    if other := [name for name in ours if theirs[name] != ours[name]]:
        raise RunConflict(f"--reuse {path} trained otherwise: its {', '.join(other)} is not this run's; leave it out, or set the same")
    try:
        refuse_other_data(path, task)
    except RunConflict as error:
        raise RunConflict(f"--reuse {path} was trained on other images than those of {task.data}; leave it out") from error
    seed = final_seed(config)
    return {r.id: r for r in run.rows if r.stage == "final" and r.status == "trained" and r.seed == seed}


def _settings(config: RunConfig) -> dict[str, object]:
    """What a full training of a network follows from, beside the data and the epochs, which each row has."""
    recipe = msgspec.structs.replace(config.recipe, epochs=10**6)
    split = config.seed if config.data_seed is None else config.data_seed
    return {"task": config.task, "train_images": config.train_images, "image_size": config.image_size, "seed": config.seed,
            "split's seed": split, "recipe": recipe}


def take_over(wanted: Mapping[str, str], epochs: int, bench: "Bench", folder: RunFolder) -> dict[str, Candidate]:
    """Of the ``wanted`` networks (id -> label as a baseline) the rows that ``bench.reuses`` has for so many epochs, appended to the run.

    Their weights are copied where they are still there; a row without its weights file counts as well: it has been scored.
    """
    mine = {r.id for r in folder.rows if r.stage == "final" and r.status == "trained"}
    found = {i: bench.reuses[i] for i in wanted if i not in mine and i in bench.reuses and bench.reuses[i].epochs == epochs}
    rows = {i: msgspec.structs.replace(row, baseline=wanted[i], weights=f"models/{i}.safetensors") for i, row in found.items()}
    for i, row in rows.items():
        theirs = Path(bench.config.reuse or "") / found[i].weights
        if theirs.is_file():
            load(theirs)  # a damaged file is not copied
            write_atomic(folder.path / row.weights, theirs.read_bytes())
    if rows:
        folder.append(*rows.values())
        bench.console.say(f"reused   {len(rows)} full trainings of {bench.config.reuse}")
    return rows
