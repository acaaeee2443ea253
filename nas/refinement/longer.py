"""The full trainings: of the seed where it has yet to learn the task, of the path's networks, and of the scaled ones beside them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from nas.config import RunConfig
from nas.cost import count
from nas.finals import FINAL_SEED
from nas.jobs import Job, Outcome, recipe_for
from nas.samplers import proposal_seed
from nas.store import Candidate, RunFolder
from nas.trainings import Trainings
from search_spaces.architecture import Architecture

__all__ = ["Full", "FullTrainings"]


class Full(msgspec.Struct, frozen=True, kw_only=True):
    """A network to train by the whole recipe: from the weights in ``init``, then with the learning rate of fine-tuning, or anew."""

    arch: Architecture
    label: str = ""  # "seed x0.5"; "": of the path
    parent_id: str = ""
    init: Path | None = None

    @property
    def source(self) -> Literal["full", "tuned"]:
        """What its row says."""
        return "tuned" if self.init else "full"


class FullTrainings(Trainings):
    """Full trainings after a refinement; what the run already has is not trained again."""

    def __init__(
        self, wanted: Sequence[Full], *, config: RunConfig, folder: RunFolder, kept: Sequence[Candidate], tune_lr: float,
        on_row: Callable[[Candidate], None] = lambda row: None,
    ) -> None:  # fmt: skip
        """Take what is wanted and the rows that the run has by now; ``tune_lr`` is the learning rate of fine-tuning, of the recipe's.

        Of equal trainings the first has its label: a scaled or searched network that is one of the path's is the path's.
        """
        self._config, self._tune_lr, self.on_row = config, tune_lr, on_row
        done = {(r.id, r.score_source): r for r in kept if r.stage == "final" and r.status == "trained"}
        distinct: dict[str, Full] = {}
        for w in wanted:
            distinct.setdefault(_key(w), w)
        left = ((self._job(w, folder), w) for w in distinct.values() if (w.arch.id, w.source) not in done)
        rows = (done[w.arch.id, w.source] for w in distinct.values() if (w.arch.id, w.source) in done)
        super().__init__(folder, rows, ((job, _draft(job, w)) for job, w in left))

    def told(self, row: Candidate, outcome: Outcome) -> None:
        """Hands the row on."""
        self.on_row(row)

    def _job(self, wanted: Full, folder: RunFolder) -> Job:
        recipe = recipe_for(self._config, self._config.final_epochs)
        if wanted.init:
            recipe = msgspec.structs.replace(recipe, lr=recipe.lr * self._tune_lr)
        weights = folder.path.resolve() / "models" / f"{wanted.arch.id}{'-tuned' * (wanted.source == 'tuned')}.safetensors"
        return Job(
            key=_key(wanted), arch=wanted.arch, recipe=recipe, seed=proposal_seed(self._config.seed, FINAL_SEED), weights=str(weights),
            test=True, init=str(wanted.init.resolve()) if wanted.init else "",
        )  # fmt: skip


def _key(wanted: Full) -> str:
    return f"{wanted.source} {wanted.arch.id}"


def _draft(job: Job, wanted: Full) -> Candidate:
    return Candidate(
        stage="final", status="failed", arch=job.arch, seed=job.seed, baseline=wanted.label, parent_id=wanted.parent_id,
        cost=count(job.arch), score_source=wanted.source, epochs=job.recipe.epochs,
    )  # fmt: skip
