"""Search spaces from TOML files: the built-in tables' own fields, and mistakes that name file, row and field."""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from search_spaces.errors import InvalidSpace, UnknownName
from search_spaces.space import Edge, SearchSpace
from search_spaces.stage import ALLOWED, MENUS, Stage

__all__ = ["from_toml"]

_Part = TypeVar("_Part", Edge, Stage)
_Table = dict[str, Any]  # Any: parsed TOML
_FIELDS = ("name", "se_rule", "stem", "last", "head", "stages")
_EDGE_ALLOWED = {
    "out_ch": "a whole number of at least 1",
    "kernel": "an odd whole number of at least 1",
    "act": ALLOWED["act"],
    "scale": "always, up, fixed",
}


def from_toml(path: str | Path) -> SearchSpace:
    """The space of a TOML file: [stem], [[stages]], [last], [head], se_rule, name (else the file's). A bare value is a menu of one.

    Raises:
        InvalidSpace: no such file, not TOML, or a mistake in it; the text names file, row and field.
    """
    path = Path(path)
    table = _read(path)
    _known(str(path), table, _FIELDS)
    rows = table.get("stages")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InvalidSpace(f"{path}: stages: write at least one [[stages]] row")
    stages = tuple(_part(f"{path}: stages row {_label(i, row)}", _menus(row), Stage, ALLOWED) for i, row in enumerate(rows, 1))
    edges: _Table = {name: _edge(path, name, table[name]) for name in ("stem", "last", "head") if name in table}
    if "stem" not in edges:
        raise InvalidSpace(f"{path}: stem: write a [stem] table with out_ch and kernel")
    try:
        return msgspec.convert({"name": path.stem} | table | edges | {"stages": stages}, SearchSpace)
    except msgspec.ValidationError as error:
        raise InvalidSpace(f"{path}: {_plain(error, {'name': 'text', 'se_rule': 'mnasnet or mobilenetv3'})}") from error


def _read(path: Path) -> _Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSpace(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSpace(f"{path}: not TOML: {error}") from error


def _edge(path: Path, name: str, table: object) -> Edge:
    if not isinstance(table, dict):
        raise InvalidSpace(f"{path}: {name}: write a [{name}] table, got {table!r}")
    return _part(f"{path}: {name}", table, Edge, _EDGE_ALLOWED)


def _part(where: str, table: _Table, kind: type[_Part], allowed: dict[str, str]) -> _Part:
    _known(where, table, allowed)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise InvalidSpace(f"{where}: {_plain(error, allowed)}") from error


def _known(where: str, table: _Table, fields: dict[str, str] | tuple[str, ...]) -> None:
    for field in table:
        if field not in fields:
            raise InvalidSpace(f"{where}: {UnknownName.among('field', field, fields)}")


def _menus(row: _Table) -> _Table:
    return {field: [value] if field in MENUS and not isinstance(value, list) else value for field, value in row.items()}


def _label(number: int, row: _Table) -> str:
    return f"{number} ({row['name']!r})" if "name" in row else str(number)


def _plain(error: msgspec.ValidationError, allowed: dict[str, str]) -> str:
    """msgspec's sentence with its field in front and what is allowed behind; our own rules' sentences say both already."""
    if isinstance(error.__cause__, InvalidSpace):
        return re.sub(r"^(stage|space) '.*?': | - at `.*`$", "", str(error.__cause__))
    problem, _, at = str(error).partition(" - at `$.")
    missing = re.search(r"missing required field `(\w+)`", problem)
    field = missing[1] if missing else re.split(r"\W", at)[0]
    said = "is missing" if missing else problem[:1].lower() + problem[1:]
    return f"{field}: {said} (allowed: {allowed[field]})" if field in allowed else said
