"""Torch networks: ``build(arch)`` and the readers of other people's weights."""

from nas.models.network import Network, build

__all__ = ["Network", "build"]
