"""A fixed teacher's outputs: asked in every step, or kept on disk for trainings that see the very same images.

A training's order and augmentation follow from its seed and recipe alone, never from the student. Students with one seed (other losses,
temperatures, architectures) therefore see the same views, and the teacher need look at them once.
"""

import time
from pathlib import Path

import torch
from torch import Tensor

from latency.console import duration
from nas.distillation.teachers import Teacher
from nas.train import Batch
from nas.weights import InvalidWeights, load, save

__all__ = ["AskedLogits", "StoredLogits"]

LARGEST_BYTES = 512 << 20  # of what one training's outputs may take in memory and on disk
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}  # of the largest output; other views differ by far more


class AskedLogits:
    """Asks the teacher in every step."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self._precision = teacher, "fp32"
        self.story = ""

    def prepare(self, device: torch.device, *, precision: str, steps: int, batch: int) -> None:
        """See ``nas.train.Lesson``."""
        self._teacher, self._precision = self._teacher.to(device), precision

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (B, K), float32, for the batch's images."""
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            return self._teacher.logits(batch.x)


class StoredLogits:
    """As ``AskedLogits``, kept below ``folder`` under ``views``, which must name everything that the images follow from.

    What is read is held against the teacher in the first step: outputs that are not its own are dropped and asked anew. What is kept
    is exact (float32), so that a training with kept outputs gives the weights of one without.
    """

    def __init__(self, teacher: Teacher, folder: Path, views: str, classes: int) -> None:
        self._asked, self._folder, self._views, self._classes = AskedLogits(teacher), folder, views, classes
        self._precision, self._path = "fp32", folder
        self._known: Tensor | None = None
        self._fresh: Tensor | None = None
        self._seconds = 0.0
        self.story = ""  # what to tell of it when the training is done

    def prepare(self, device: torch.device, *, precision: str, steps: int, batch: int) -> None:
        """See ``nas.train.Lesson``; reads what is kept of this very training."""
        self._asked.prepare(device, precision=precision, steps=steps, batch=batch)
        self._precision = precision
        version = torch.__version__.partition("+")[0]  # another torch may draw other augmentations
        self._path = self._folder / f"logits-{self._views}-{device.type}-{precision}-{version}.safetensors"
        size_bytes = steps * batch * self._classes * 4
        if size_bytes > LARGEST_BYTES:
            self.story = f"the teacher's outputs would take {size_bytes >> 20} MiB and are not kept"
            return
        self._fresh = torch.empty(steps, batch, self._classes)
        try:
            kept = load(self._path) if self._path.exists() else {}
        except InvalidWeights:
            kept = {}
        if set(kept) == {"logits", "seconds"} and kept["logits"].shape == self._fresh.shape:
            self._known, self._seconds = kept["logits"].to(device), float(kept["seconds"])

    def __call__(self, batch: Batch) -> Tensor:
        """Logits (B, K), float32, for the batch's images."""
        if self._known is not None and (batch.step or self._is_known(batch)):
            return self._known[batch.step]
        began = _now(batch.x.device)
        logits = self._asked(batch)
        if self._fresh is not None:
            self._fresh[batch.step] = logits
            self._seconds += _now(batch.x.device) - began
            if batch.step == batch.steps - 1:
                self._keep()
        return logits

    def _is_known(self, batch: Batch) -> bool:
        """Whether the first batch's kept outputs are what the teacher says of it; if not they are dropped."""
        assert self._known is not None, "asked only then"
        logits = self._asked(batch)
        worst = float((logits - self._known[0]).abs().max() / logits.abs().max().clamp_min(1e-12))
        if worst <= TOLERANCE[self._precision]:
            self.story = f"the teacher's outputs were read from disk, which saved the {duration(self._seconds)} that it took to ask it"
            return True
        self._known, self._seconds = None, 0.0
        return False

    def _keep(self) -> None:
        assert self._fresh is not None, "kept only then"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save({"logits": self._fresh, "seconds": torch.tensor(self._seconds)}, self._path)
        except OSError as error:  # a full disk must not cost a finished training
            self.story = f"the teacher's outputs could not be kept: {error.strerror}"
            return
        self.story = f"the teacher took {duration(self._seconds)}; its outputs are kept for further trainings with this seed"


def _now(device: torch.device) -> float:
    """Seconds, with all work on a GPU done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
