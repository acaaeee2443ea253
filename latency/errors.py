"""Errors about devices and measuring: a branch of the project's one small tree."""

from typing import TYPE_CHECKING

from search_spaces.errors import NasError

if TYPE_CHECKING:
    from search_spaces.architecture import Piece

__all__ = [
    "Busy", "DeviceError", "Failed", "InvalidDevice", "InvalidPlan", "InvalidRuntime", "InvalidTable", "MissingPieces", "Unreachable",
]  # fmt: skip


class InvalidDevice(NasError, ValueError):
    """A device's address is malformed; the text names the part and what may stand there."""


class InvalidPlan(NasError, ValueError):
    """A timing plan breaks a rule; the text names the field, the rule and the value."""


class InvalidRuntime(NasError, ValueError):
    """A file is no ONNX Runtime library, or one for another machine than the device; the text says which."""


class InvalidTable(NasError, ValueError):
    """A file is no latency table, or one of another space, device or plan; the text names the file and the difference."""


class MissingPieces(NasError, LookupError):
    """A latency table lacks pieces of a network; the text says how many and which, and how to measure them.

    ``pieces`` are all of them.
    """

    def __init__(self, text: str, pieces: "tuple[Piece, ...]") -> None:
        super().__init__(text)
        self.pieces = pieces


class DeviceError(NasError):
    """A device could not give a measurement; the text says what happened and what to do."""

    exit_code = 1


class Unreachable(DeviceError):
    """The device is not there, or not there any more: the same model may be timed once it is back."""


class Busy(DeviceError):
    """The device is there and another process measures on it: wait for that one."""


class Failed(DeviceError):
    """The device is there and could not run the model: trying again will not help.

    ``model_index`` is the place of the model in the sequence given to ``Device.time``; None where no single model is to blame.
    """

    def __init__(self, text: str, *, model_index: int | None = None) -> None:
        super().__init__(text)
        self.model_index = model_index
