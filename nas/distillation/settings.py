"""Options of a loss as they are written on a command line, such as ``temperature=2``. Loads nothing heavy."""

from collections.abc import Container, Sequence

from nas.distillation.lesson import Option
from nas.errors import InvalidConfig

__all__ = ["parse_settings", "parse_sweep"]


def parse_settings(texts: Sequence[str], flag: str = "--set") -> dict[str, Option]:
    """The values by name in texts such as ``temperature=2``, given with ``flag``.

    Raises:
        InvalidConfig: there is no = in one, or nothing before or behind it; a name is there twice.
    """
    found: dict[str, Option] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise InvalidConfig(f"{flag} {text}: say NAME=VALUE, such as temperature=2")
        _refuse_second(name, found, flag)
        found[name] = _number_or_text(value)
    return found


def parse_sweep(texts: Sequence[str]) -> dict[str, tuple[Option, ...]]:
    """The values to try by name in texts such as ``temperature=1,2,4``, given with --sweep.

    Raises:
        InvalidConfig: there is no = in one, a value is missing or there twice; a name is there twice.
    """
    found: dict[str, tuple[Option, ...]] = {}
    for text in texts:
        name, _, rest = (part.strip() for part in text.partition("="))
        values = tuple(_number_or_text(v.strip()) for v in rest.split(","))
        if not name or "" in values or len(set(values)) < len(values):
            raise InvalidConfig(f"--sweep {text}: say NAME=VALUE,VALUE,... with each value once, such as temperature=1,2,4")
        _refuse_second(name, found, "--sweep")
        found[name] = values
    return found


def _refuse_second(name: str, found: Container[str], flag: str) -> None:
    if name in found:
        more = "; give its values at once, as NAME=VALUE,VALUE,..." if flag == "--sweep" else ""
        raise InvalidConfig(f"{flag} has {name} twice{more or '; give it once'}")


def _number_or_text(text: str) -> Option:
    try:
        return float(text)
    except ValueError:
        return text
