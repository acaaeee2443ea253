"""Pretrained classifiers of timm, an optional package whose errors become those of a teacher."""

import pickle
from http.client import HTTPException
from typing import Any

from torch import nn

from nas.errors import InvalidTeacher, UnknownName

__all__ = ["timm_config", "timm_network"]

NAMED = 20  # networks that an error lists


def timm_config(name: str) -> Any:  # Any: a class of an optional package
    """How the pretrained network ``name`` (``resnet18``, or with the tag of its weights, ``resnet18.a1_in1k``) wants its images.

    Raises:
        UnknownName: no such network.
        InvalidTeacher: no timm, no such tag, or no pretrained weights.
    """
    timm = _timm()
    if not timm.is_model(name):
        raise UnknownName.among("timm network", name, timm.list_models(f"*{name[:4]}*", pretrained=True)[:NAMED])
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # the tag
        raise InvalidTeacher(f"timm:{name}: {error}{_others(timm, name)}") from error
    if config is None or not config.has_weights:  # timm may leave such a network with random weights, and only log it
        raise InvalidTeacher(f"timm:{name} has no pretrained weights{_others(timm, name)}")
    return config


def timm_network(name: str) -> nn.Module:
    """The pretrained network, downloaded where timm's cache has it not.

    Raises:
        InvalidTeacher: no timm, or weights that cannot be downloaded or read.
    """
    from safetensors import SafetensorError

    timm = _timm()
    foreign = (OSError, RuntimeError, ValueError, LookupError, EOFError, AssertionError)  # of timm, torch and the hub's client
    try:
        network: nn.Module = timm.create_model(name, pretrained=True)
    except (*foreign, pickle.UnpicklingError, HTTPException, SafetensorError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidTeacher(
            f"timm:{name}: its weights could not be fetched, or are damaged in the cache ({why}); mend that, or use file:WEIGHTS"
        ) from error
    return network


def _timm() -> Any:  # Any: an optional package
    try:
        import timm
    except ImportError as error:
        raise InvalidTeacher("timm:NAME needs the package timm: pip install 'hardware-aware-nas[timm]'") from error
    return timm


def _others(timm: Any, name: str) -> str:  # Any: an optional package
    known = timm.list_models(f"{name.partition('.')[0]}*", pretrained=True)[:NAMED]
    return f" (with weights: {', '.join(known)})" if known else ""
