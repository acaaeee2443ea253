"""Who may import what (DESIGN.md), how long a file may be, and that menus mention every file of their folder."""

import ast
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("search_spaces", "latency", "nas")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LINES = 400

OURS = {"search_spaces": {"search_spaces"}, "latency": {"latency", "search_spaces"}, "nas": set(PACKAGES)}
NAS_VERBS = {f"nas/{name}.py" for name in ("search", "export", "rank", "refine", "distill", "report")}
VERBS = NAS_VERBS | {f"latency/{name}.py" for name in ("profile", "build_table", "estimate")}
ONLY_IN = {  # a module, and the only files (or folders, ending in /) that may import it
    "torch": ("nas/",),
    "torchvision": ("nas/",),
    "onnxruntime": ("latency/", "nas/export.py", "nas/evaluate.py"),
    "optuna": ("nas/search.py", "nas/proposals.py", "nas/samplers/", "nas/executors/"),
    "ray": ("nas/executors/ray.py", "nas/executors/tune.py"),
    "rich": ("latency/console.py",),
    "click": (*sorted(VERBS), "nas/verbs.py", "latency/verbs.py", "latency/devices/__main__.py"),
}
MENUS = {  # a folder, its dict, and files that are no entry: why
    "search_spaces": ("SPACES", {
        "architecture": "the value", "baselines": "has its own dict", "corners": "of space", "encode": "of space", "errors": "errors",
        "piece_menu": "of space", "size": "of space", "space": "the type", "stage": "a row", "table": "reads TOML", "demo": "no space",
    }),
    "latency/devices": ("DEVICES", {
        "base": "the protocol", "__main__": "lists them", "listing": "lists them", "adb": "of android", "facts": "of ssh and android",
        "remote": "of both", "remote_device": "of both", "remote_shell": "of both", "runner_device": "of all three", "transport": "of all",
    }),
    "nas/tasks": ("DATASETS", {"task": "the type", "dataset": "shared rules", "downloads": "three entries", "classify": "in TASKS"}),
    "nas/samplers": ("SAMPLERS", {}),
    "nas/losses": ("LOSSES", {"rows": "what several losses share"}),
    "nas/executors": ("EXECUTORS", {"tune": "the parts that Ray Tune wants of ray.py"}),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Import:
    file: str
    line: int
    module: str

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of a file, inside functions too; ``from a import b`` counts as a.b."""
    file = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(file=file, line=node.lineno, module=alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            yield from (Import(file=file, line=node.lineno, module=f"{node.module}.{alias.name}") for alias in node.names)


ALL = [found for path in FILES for found in imports_of(path)]


def allowed(file: str, places: tuple[str, ...]) -> bool:
    return any(file.startswith(place) if place.endswith("/") else file == place for place in places)


def test_packages_import_downwards_only() -> None:
    wrong = [str(i) for i in ALL if i.top in PACKAGES and i.top not in OURS[i.file.partition("/")[0]]]
    assert not wrong, f"nas → latency → search_spaces, never backwards: {wrong}"


@pytest.mark.parametrize("module", ONLY_IN)
def test_module_is_imported_where_it_may_be_only(module: str) -> None:
    wrong = [str(i) for i in ALL if i.top == module and not allowed(i.file, ONLY_IN[module])]
    assert not wrong, f"{module} belongs in {', '.join(ONLY_IN[module])}: {wrong}"


def test_no_module_imports_a_verb_but_the_search() -> None:
    verbs = {file.removesuffix(".py").replace("/", ".") for file in VERBS - {"nas/search.py"}}
    body = {"nas/search.py", "nas/pipeline.py", "nas/stages/run.py"}  # what the verb search does
    wrong = [str(i) for i in ALL if i.module.rpartition(".")[0] in verbs and i.file not in body]
    assert not wrong, f"nobody imports a verb except search: {wrong}"


@pytest.mark.parametrize("package", ["search_spaces"])
def test_search_spaces_need_the_standard_library_numpy_and_msgspec_only(package: str) -> None:
    known = {*sys.stdlib_module_names, "numpy", "msgspec", package}
    wrong = [str(i) for i in ALL if i.file.startswith(package) and i.top not in known]
    assert not wrong, f"{package} is standard library, numpy and msgspec: {wrong}"


@pytest.mark.parametrize("path", [p for top in (*PACKAGES, "tests", "benchmarks") for p in sorted((ROOT / top).rglob("*.py"))], ids=str)
def test_file_is_no_longer_than_the_cap(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LINES, f"{path.relative_to(ROOT)} has {lines} lines; the cap is {LINES}: give a part of it a file of its own"


@pytest.mark.parametrize("folder", MENUS)
def test_menu_mentions_every_file_of_its_folder(folder: str) -> None:
    name, helpers = MENUS[folder]
    package = importlib.import_module(folder.replace("/", "."))
    named = {part.stem for part in (ROOT / folder).glob("*.py")} - {"__init__"} - set(helpers)
    homes = {_home(entry) for entry in getattr(package, name).values()} | {str(key).replace("-", "_") for key in getattr(package, name)}
    missing = sorted(named - homes)
    assert not missing, f"add to {name} in {folder}/__init__.py: " + "; ".join(f'"{m}": {m}....,' for m in missing)


def _home(entry: object) -> str:
    """The file that an entry of a menu comes from; a value's is told by its name."""
    return str(getattr(entry, "__module__", "")).rpartition(".")[2]


@pytest.mark.parametrize("text", ["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/"])
def test_no_file_names_a_path_of_one_computer(text: str) -> None:
    tops = [ROOT / name for name in (*PACKAGES, "tests", "benchmarks")]
    files = [p for top in tops for p in top.rglob("*") if p.suffix in {".py", ".toml", ".md"}]
    files += [p for name in ("README.md", "Makefile", "pyproject.toml") if (p := ROOT / name).exists()]
    assert not [str(p.relative_to(ROOT)) for p in files if text in p.read_text()]
