"""Errors about names, architectures and search spaces; the root of the project's one small error tree."""

import difflib
from collections.abc import Iterable

__all__ = ["InvalidArchitecture", "InvalidSpace", "NasError", "UnknownName"]


class NasError(Exception):
    """Base of every error that a user can act on: its text is one clear sentence, its ``exit_code`` the process's."""

    exit_code = 2


class InvalidArchitecture(NasError, ValueError):
    """An architecture breaks a rule; the text names the rule, the value and the block."""


class InvalidSpace(NasError, ValueError):
    """A search space's table breaks a rule; the text names the file (if any), the row and the field."""


class UnknownName(NasError, LookupError):
    """A name that no menu has; the text suggests the nearest one and lists the menu."""

    @classmethod
    def among(cls, what: str, name: object, known: Iterable[object], *, listed: Iterable[object] | None = None) -> "UnknownName":
        """An error that says ``name`` is no ``what``, with a suggestion and the known names, or those ``listed`` where all are too many."""
        names = [str(k) for k in known]
        near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return cls(f"unknown {what} {str(name)!r}{hint} (known: {', '.join(names if listed is None else map(str, listed))})")
