"""This computer's ONNX Runtime as a reference: sessions with a plan's settings."""

from pathlib import Path
from typing import TYPE_CHECKING

from latency.errors import Failed
from latency.ort import onnxruntime_module
from latency.plan import TimingPlan

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["open_session", "reason"]

PROVIDERS = {"cpu": "CPUExecutionProvider", "xnnpack": "XnnpackExecutionProvider", "nnapi": "NnapiExecutionProvider"}


def open_session(
    model: Path | bytes, plan: TimingPlan, *, name: str, profile_prefix: str = "", model_index: int | None = None
) -> "onnxruntime.InferenceSession":
    """The model loaded with the plan's threads and optimisation level; a ``profile_prefix`` switches ONNX Runtime's profiler on.

    Raises:
        Failed: ONNX Runtime refuses the model (with ``model_index``), or has no such provider as the plan asks for.
    """
    onnxruntime = onnxruntime_module()
    provider = PROVIDERS[plan.provider]
    if provider not in onnxruntime.get_available_providers():
        there = ", ".join(p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers())
        raise Failed(f"local: this computer's onnxruntime has no provider {plan.provider}; it has {there}")
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
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    # A model's threads must not spin on while the next model is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if profile_prefix:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    try:
        return onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        raise Failed(f"ONNX Runtime cannot load {name}: {reason(error)}", model_index=model_index) from error


def reason(error: Exception) -> str:
    """The last part of ONNX Runtime's message: what stands behind ``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF :``."""
    return " ".join(str(error).split()).split(" : ", 3)[-1].rstrip(".")
