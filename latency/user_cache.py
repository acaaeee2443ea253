"""The folder in which things outlive a run: measured latencies, leases of devices, runtimes for devices."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["user_cache"]


def user_cache(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """``$NAS_CACHE`` itself, else ``hardware-aware-nas`` below ``$XDG_CACHE_HOME`` or the system's folder for caches; not made yet.

    >>> user_cache({"NAS_CACHE": "/data/nas"}).as_posix(), user_cache({"XDG_CACHE_HOME": "/c"}).as_posix()
    ('/data/nas', '/c/hardware-aware-nas')
    """
    if chosen := environ.get("NAS_CACHE"):
        return Path(chosen)
    return _caches(environ, platform) / "hardware-aware-nas"


def _caches(environ: Mapping[str, str], platform: str) -> Path:
    if chosen := environ.get("XDG_CACHE_HOME"):
        return Path(chosen)
    if platform == "win32" and (local := environ.get("LOCALAPPDATA")):
        return Path(local)
    return Path.home() / ("Library/Caches" if platform == "darwin" else ".cache")
