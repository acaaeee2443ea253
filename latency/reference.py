"""This computer's ONNX Runtime as a reference: sessions with a plan's settings that are never timed."""

from pathlib import Path
from typing import TYPE_CHECKING

from latency.errors import Failed
from latency.ort import onnxruntime_module
from latency.plan import TimingPlan

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["open_session", "reason"]


def open_session(model: Path | bytes, plan: TimingPlan, *, name: str, profile_prefix: str = "") -> "onnxruntime.InferenceSession":
    """The model loaded with the plan's threads and optimisation level; a ``profile_prefix`` switches ONNX Runtime's profiler on.

    Raises:
        Failed: ONNX Runtime refuses the model.
    """
    onnxruntime = onnxruntime_module()
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = plan.threads, 1
    options.graph_optimization_level = {
        "disabled": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[plan.opt_level]
    options.log_severity_level = 4
    if profile_prefix:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise Failed(f"ONNX Runtime cannot load {name}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """The last part of ONNX Runtime's message: what stands behind ``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF :``."""
    return " ".join(str(error).split()).split(" : ", 3)[-1].rstrip(".")
