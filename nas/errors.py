"""The error tree of searching and training: what a user can act on, in one sentence, with the process's exit code."""

from latency.errors import Busy, DeviceError, Failed, Unreachable
from search_spaces.errors import InvalidArchitecture, InvalidSpace, NasError, UnknownName

__all__ = [
    "Busy", "DeviceError", "Diverged", "Failed", "InvalidArchitecture", "InvalidConfig", "InvalidData", "InvalidLogits", "InvalidSpace",
    "InvalidTeacher", "NasError", "NothingFeasible", "RunConflict", "Stopped", "UnknownName", "Unreachable",
]


class InvalidData(NasError, ValueError):
    """A data set cannot be used as it is; the text names the file, the array or the folder and what is wrong with it."""


class InvalidConfig(NasError, ValueError):
    """A flag or a field of a configuration breaks a rule; the text names it and the value."""


class InvalidLogits(NasError, ValueError):
    """Outputs that a loss cannot compare; the text names the shapes."""


class InvalidTeacher(NasError, ValueError):
    """A teacher that cannot teach this task: other classes or channels, no such network, weights that are not its own."""


class Diverged(NasError, ArithmeticError):
    """Training gave a loss or weights that are not finite, or a loss far above chance; the text says where and what to lower."""

    exit_code = 1


class NothingFeasible(NasError):
    """No architecture of the space meets the latency budget, or no step of a refinement is possible; the text names the figures."""


class RunConflict(NasError):
    """A run folder holds another configuration or is in use; the text says which and what to do."""


class Stopped(NasError):
    """The run cannot go on; what it has is kept, and the text says why."""

    exit_code = 1
