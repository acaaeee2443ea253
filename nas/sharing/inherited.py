"""A network's score with weights from a bank: inherit, recalibrate BatchNorm on a fixed set of training images, score on valid."""

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from latency.onnx_graph import emit
from nas.evaluate import evaluate, logits_of_onnx
from nas.models.network import Network
from nas.recipe import Recipe
from nas.sharing.bank import Bank, inherit
from nas.sharing.bank_file import open_average
from nas.tasks.dataset import Images, pick
from nas.tasks.task import Split, Task
from nas.train import precision
from nas.weights import numpy_weights
from search_spaces.architecture import Architecture

__all__ = ["CALIBRATION_IMAGES", "VALID_IMAGES", "calibrate", "calibration_images", "inherited_score", "kept_bank"]

CALIBRATION_IMAGES, VALID_IMAGES = 256, 1000
CALIBRATION_BATCH = 64  # of larger ones the activations leave a core's cache: twice the time
MOST_AT_ONCE = 16  # images that ONNX Runtime takes at a time, for the same reason
CHUNK_BYTES = 64_000_000  # of normalised images held at once


def inherited_score(bank: Bank, arch: Architecture, task: Task, recipe: Recipe | None = None) -> float:
    """The task's score of a network with the bank's weights, on at most ``VALID_IMAGES`` of valid; the same at every call.

    On a CPU the calibrated network is scored by ONNX Runtime with one thread, in a third of torch's time; on a GPU it is calibrated and
    scored in the precision that ``recipe`` trains in there (None: fp32).

    Raises:
        InvalidArchitecture: the architecture is no member of the bank's space.
    """
    network = inherit(bank, arch)
    images, valid = calibration_images(task, CALIBRATION_IMAGES), _split(task.valid, VALID_IMAGES)
    place = next(network.parameters()).device
    if place.type == "cpu":
        calibrate(network, images)
        return _scored_by_onnx(network, task, valid)
    bf16 = recipe is not None and precision(recipe, place) == "bf16"
    with torch.autocast(place.type, torch.bfloat16, enabled=bf16):
        calibrate(network, images)
        return evaluate(network, task, valid)


def _scored_by_onnx(network: Network, task: Task, split: Split) -> float:
    weights, normalise = numpy_weights(network), task.normaliser()
    logits = []
    for images in torch.split(split.x, max(1, CHUNK_BYTES // (4 * split.x[0].numel()))):
        batch = next(size for size in range(MOST_AT_ONCE, 0, -1) if len(images) % size == 0)
        logits.append(logits_of_onnx(emit(network.arch, weights, batch=batch), normalise(images).numpy()))
    return task.score(torch.from_numpy(np.concatenate(logits)), split.y)


def calibration_images(task: Task, count: int) -> Tensor:
    """A fixed, stratified ``count`` of the training images (N, C, H, W), not augmented but normalised, on the CPU."""
    return task.normaliser()(_split(task.train, count).x).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def calibrate(module: nn.Module, x: Tensor, *, batch: int = CALIBRATION_BATCH) -> None:
    """Gives every BatchNorm of ``module`` the statistics of normalised images (N, C, H, W), in place; leaves it in eval mode.

    Each layer sees what the layers before it make of the same batch's statistics; those of equal batches are averaged.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    place = next(module.parameters()).device
    momenta = [norm.momentum for norm in norms]
    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over batches
        norm.train()
    for images in x.chunk(math.ceil(len(x) / batch)):
        module(images.to(place))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()


def kept_bank(path: str, device: str) -> Bank:
    """The averaged weights of a finished bank on ``device``, read once by each process for as long as the file is the same."""
    return _bank_of(path, Path(path).stat().st_mtime_ns, device)


@lru_cache(maxsize=1)
def _bank_of(path: str, mtime_ns: int, device: str) -> Bank:
    return {name: tensor.to(device) for name, tensor in open_average(Path(path)).items()}


def _split(images: Images, count: int) -> Split:
    index = pick(images.y, min(count, len(images)), np.random.default_rng(0))
    chosen = images.at(index)
    return Split(x=torch.from_numpy(chosen.x).permute(0, 3, 1, 2), y=torch.from_numpy(chosen.y))
