"""A few training steps of networks, timed on the very workers that are to train them, all at work at a time."""

from collections.abc import Mapping, Sequence

from nas.jobs import Done, Job, JobQueue, Outcome
from nas.recipe import Recipe
from search_spaces.architecture import Architecture

__all__ = ["Probes", "filled"]


class Probes:
    """A ``JobSource`` whose jobs time training; ``image_s`` holds seconds for one image by architecture id, without those that failed."""

    def __init__(self, archs: Sequence[Architecture], recipe: Recipe, *, seconds: float) -> None:
        """Take the networks, each to be timed for ``seconds`` after its first step."""
        self._queue = JobQueue(Job(key=f"probe {a.id}", arch=a, recipe=recipe, seed=0, weights="", probe_s=seconds) for a in archs)
        self.image_s: dict[str, float] = {}

    def next(self) -> Job | Done | None:
        """The next network to time; see ``JobSource``."""
        return self._queue.next()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Takes in a speed; a network that cannot be trained will say so when it is trained.

        Raises:
            Stopped: a reason to stop that is no fault of the network.
        """
        self._queue.take_back(outcome)
        if not outcome.error:
            self.image_s[job.arch.id] = outcome.image_s


def filled(found: Mapping[str, float], guesses: Mapping[str, float]) -> dict[str, float]:
    """The speeds found; where one is missing its guess, scaled as the others turned out against theirs."""
    known = [key for key in guesses if key in found]
    scale = sum(found[k] for k in known) / sum(guesses[k] for k in known) if known else 1.0
    return {key: found.get(key, guess * scale) for key, guess in guesses.items()}
