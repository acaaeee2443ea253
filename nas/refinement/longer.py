"""The full trainings: of the seed where it has yet to learn the task, of the path's networks, and of the scaled ones beside them."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from nas.config import RunConfig
from nas.cost import count
from nas.errors import Stopped
from nas.jobs import DONE, Done, Job, Outcome, recipe_for
from nas.samplers import proposal_seed
from nas.store import Candidate, RunFolder
from search_spaces.architecture import Architecture

__all__ = ["Full", "FullTrainings"]

FULL_SEED = 1_000_000_007  # as nas.finals has it: networks of a search and of a refinement begin alike


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


class FullTrainings:
    """Full trainings as a source of jobs (a ``JobSource``); what the run already has is not trained again."""

    def __init__(
        self, wanted: Sequence[Full], *, config: RunConfig, folder: RunFolder, kept: Sequence[Candidate], tune_lr: float,
        on_row: Callable[[Candidate], None] = lambda row: None,
    ) -> None:  # fmt: skip
        """Take what is wanted, and the rows that the run has by now; ``tune_lr`` is the learning rate of fine-tuning, of the recipe's."""
        self._config, self._folder, self._tune_lr, self.on_row = config, folder, tune_lr, on_row
        done = {(r.id, r.score_source): r for r in kept if r.stage == "final" and r.status == "trained"}
        by_key = {_key(w): w for w in wanted}
        self.rows = [done[w.arch.id, w.source] for w in by_key.values() if (w.arch.id, w.source) in done]
        self.failed: list[Candidate] = []
        self._wanted = {key: w for key, w in by_key.items() if (w.arch.id, w.source) not in done}
        self._queue = deque(self._job(w) for w in self._wanted.values())
        self._out = 0

    def __len__(self) -> int:
        """How many trainings are left to hand out."""
        return len(self._queue)

    def next(self) -> Job | Done | None:
        """The next training; see ``JobSource``."""
        if not self._queue:
            return None if self._out else DONE
        self._out += 1
        return self._queue.popleft()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Stores a final row; a failed one is stored with its traceback.

        Raises:
            Stopped: a reason to stop that is no fault of the network.
        """
        self._out -= 1
        if outcome.stop:
            raise Stopped(outcome.stop)
        wanted = self._wanted[job.key]
        row = Candidate(
            stage="final", status="failed" if outcome.error else "trained", arch=job.arch, seed=job.seed, baseline=wanted.label,
            parent_id=wanted.parent_id, cost=count(job.arch), score=outcome.score, test_score=outcome.test_score,
            score_source="" if outcome.error else wanted.source, epochs=job.recipe.epochs, seconds=outcome.seconds, error=outcome.error,
            weights="" if outcome.error else str(Path(job.weights).relative_to(self._folder.path.resolve())),
        )  # fmt: skip
        self._folder.append(row)
        (self.failed if outcome.error else self.rows).append(row)
        self.on_row(row)

    def _job(self, wanted: Full) -> Job:
        recipe = recipe_for(self._config, self._config.final_epochs)
        if wanted.init:
            recipe = msgspec.structs.replace(recipe, lr=recipe.lr * self._tune_lr)
        weights = self._folder.path.resolve() / "models" / f"{wanted.arch.id}{'-tuned' * (wanted.source == 'tuned')}.safetensors"
        return Job(
            key=_key(wanted), arch=wanted.arch, recipe=recipe, seed=proposal_seed(self._config.seed, FULL_SEED), weights=str(weights),
            test=True, init=str(wanted.init.resolve()) if wanted.init else "",
        )  # fmt: skip


def _key(wanted: Full) -> str:
    return f"{wanted.source} {wanted.arch.id}"
