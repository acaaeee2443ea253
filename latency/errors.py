"""Errors about devices and measuring: a branch of the project's one small tree."""

from search_spaces.errors import NasError

__all__ = ["DeviceError", "Failed", "InvalidDevice", "InvalidPlan", "InvalidRuntime", "Unreachable"]


class InvalidDevice(NasError, ValueError):
    """A device's address is malformed; the text names the part and what may stand there."""


class InvalidPlan(NasError, ValueError):
    """A timing plan breaks a rule; the text names the field, the rule and the value."""


class InvalidRuntime(NasError, ValueError):
    """A file is no ONNX Runtime library, or one for another machine than the device; the text says which."""


class DeviceError(NasError):
    """A device could not give a measurement; the text says what happened and what to do."""

    exit_code = 1


class Unreachable(DeviceError):
    """The device is not there, or not there any more: the same model may be timed once it is back."""


class Failed(DeviceError):
    """The device is there and could not run the model: trying again will not help.

    ``model_index`` is the place of the model in the sequence given to ``Device.time``; None where no single model is to blame.
    """

    def __init__(self, text: str, *, model_index: int | None = None) -> None:
        super().__init__(text)
        self.model_index = model_index
