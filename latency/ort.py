"""ONNX Runtime without its telemetry: recent builds keep a device id and an event store and upload them, on a thread of their own."""

import os
from typing import Any

__all__ = ["onnxruntime_module"]


def onnxruntime_module() -> Any:  # Any: onnxruntime has no types
    """The ``onnxruntime`` module, its telemetry off unless the user's environment says otherwise.

    The switch is read when the library is loaded, so everything of ours loads it here.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime
