"""torchvision's classifiers with their default weights: each file is what its name says, and nothing is unpickled but tensors."""

import hashlib
import re
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.weights import InvalidWeights, read_state

__all__ = ["fresh_network", "published_network", "published_weights"]

OLD_DENSE_KEY = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")  # DenseNet's files are older than its module names
TRANSFORMING = ("googlenet", "inception_v3")  # ported from TensorFlow, they take ImageNet's normalisation off again


def published_weights(name: str) -> Path:
    """The file of a classifier's default weights in torch's cache, downloaded where it is not there yet.

    Raises:
        InvalidWeights: it cannot be downloaded, or its content has not the hash that its name gives.
    """
    url: str = _weights(name).url
    folder, file = Path(torch.hub.get_dir()) / "checkpoints", url.rpartition("/")[2]
    path, said = folder / file, re.search(r"-([0-9a-f]{8,})\.", file)
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), said[1] if said else None)
        except (OSError, RuntimeError, HTTPException) as error:  # URLError is an OSError, another hash than expected a RuntimeError
            raise InvalidWeights(
                f"torchvision's weights of {name} could not be fetched ({_first_line(error)}); without network put {url} into {folder}"
            ) from error
    if said and not _sha256(path).startswith(said[1]):
        raise InvalidWeights(f"{path}: damaged in the cache, or not torchvision's: its sha256 must begin with {said[1]}; remove the file")
    return path


def published_network(name: str) -> nn.Module:
    """The classifier as torchvision's ``get_model(name, weights="DEFAULT")`` makes it, which would run code of a pickled file.

    Raises:
        InvalidWeights: see ``published_weights``; a file that is damaged, pickled, or of another network.
    """
    from torchvision import models

    path = published_weights(name)
    state, network = read_state(path), fresh_network(name)
    for key in [k for k in state if OLD_DENSE_KEY.fullmatch(k)]:
        state[OLD_DENSE_KEY.sub(r"\1\2", key)] = state.pop(key)
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:  # a misfit; a version of the format that torchvision does not know
        raise InvalidWeights(f"{path}: holds no {name}: {_first_line(error)}") from error
    if isinstance(network, models.GoogLeNet):  # its auxiliary heads were never trained
        network.aux_logits = False
        network.register_module("aux1", None)
        network.register_module("aux2", None)
    return network


def fresh_network(name: str) -> nn.Module:
    """The classifier with weights drawn anew, and all else as its default weights want it: what torchvision sets only with weights."""
    from torchvision import models

    meta = _weights(name).meta
    wanted: dict[str, Any] = {"num_classes": len(meta["categories"])}  # Any: arguments of torchvision's builders
    if name in TRANSFORMING:
        wanted |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    elif name.startswith("vit_"):
        wanted["image_size"] = meta["min_size"][0]
    elif name.startswith("maxvit_"):
        wanted["input_size"] = meta["min_size"]
    elif name.startswith("vgg"):
        wanted["init_weights"] = False  # takes seconds
    network: nn.Module = models.get_model(name, weights=None, **wanted)
    return network


def _weights(name: str) -> Any:  # Any: an enumeration that each network has of its own
    from torchvision import models

    return models.get_model_weights(name).DEFAULT


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[:2]) or type(error).__name__
