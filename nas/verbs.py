"""What the verbs that work on a run share."""

from latency import verbs

__all__ = ["Exits"]


class Exits(verbs.Exits):
    """As ``latency.verbs.Exits``; Ctrl-C says that the run can be taken up again."""

    interrupted = "interrupted; what was finished is kept, and the same command goes on from there"
