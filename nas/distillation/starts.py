"""The weights that a student begins with: the run's own of it, or what it inherits from the run's bank."""

from collections.abc import Callable, Iterable
from pathlib import Path

from nas.distillation.lesson import Start, sha256_of
from nas.errors import InvalidConfig
from nas.store import BANK_FILE, Candidate
from nas.tasks.task import Task
from search_spaces.architecture import Architecture
from search_spaces.space import SearchSpace

__all__ = ["Starts"]


class Starts:
    """Beginnings of the students of the run in ``root``; a file is hashed once, and the space opened only for a bank."""

    def __init__(self, root: Path, space: Callable[[], SearchSpace], task: Task) -> None:
        self._root, self._space, self._task = root.resolve(), space, task
        self._hashes: dict[Path, str] = {}

    def key(self, start: Start, student: Candidate) -> tuple[str, ...]:
        """What stands for the weights: the hash of the file that they are in; () for fresh ones.

        Raises:
            InvalidConfig: they are gone, or the run has no bank.
            InvalidWeights: the bank is damaged, or not trained to its end.
            RunConflict: it is of another space or data set.
            InvalidArchitecture: the bank's space has no such network.
        """
        if start == "scratch":
            return ()
        path = self._weights(student) if start == "run" else self._bank(student)
        if path not in self._hashes:
            self._hashes[path] = sha256_of(path)
        return (self._hashes[path],)

    def path(self, start: Start, student: Candidate) -> str:
        """The file of a student's weights; that of inherited ones is there once ``write`` made it. "" for fresh ones."""
        if start == "scratch":
            return ""
        return str(self._weights(student) if start == "run" else self._inherited(student.id))

    def write(self, archs: Iterable[Architecture]) -> None:
        """Makes the files of weights inherited from the bank, BatchNorm calibrated."""
        from nas.sharing.bank import inherit
        from nas.sharing.inherited import CALIBRATION_IMAGES, calibrate, calibration_images, kept_bank
        from nas.weights import save

        images = calibration_images(self._task, CALIBRATION_IMAGES)
        for arch in archs:
            network = inherit(kept_bank(str(self._root / BANK_FILE), "cpu"), arch)
            calibrate(network, images)
            path = self._inherited(arch.id)
            path.parent.mkdir(exist_ok=True)
            save(network.state_dict(), path)

    def _weights(self, student: Candidate) -> Path:
        path = self._root / student.weights
        if not path.is_file():
            raise InvalidConfig(f"--start run: the weights of {student.id} are gone ({path}); search again, or --start scratch")
        return path

    def _bank(self, student: Candidate) -> Path:
        from nas.sharing.bank import views
        from nas.sharing.bank_file import refuse_foreign
        from nas.sharing.inherited import kept_bank

        path = self._root / BANK_FILE
        if not path.is_file():
            which = "runs with --evaluate inherited have one"
            raise InvalidConfig(f"--start bank: {self._root} has no {BANK_FILE}; {which}, others --start run")
        refuse_foreign(path, self._space(), self._task)  # it may have been copied here
        views(kept_bank(str(path), "cpu"), student.arch)
        return path

    def _inherited(self, name: str) -> Path:
        return self._root / "weights" / f"inherited-{name}.safetensors"
