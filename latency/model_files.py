"""From what a user calls a model (a file, a folder, a run of the search, a published network) to models that a device can time."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from latency.devices.base import sha256
from latency.model_inputs import Input, InvalidModel, fix_shapes, inputs_of, require_feedable
from search_spaces.baselines import BASELINES, baseline, published
from search_spaces.errors import UnknownName

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

__all__ = ["NamedModel", "open_models"]

LARGEST_BYTES = 2**31 - 1  # protobuf's limit for one message
IMAGE_SIZE, OUTPUTS = 224, 1000
Shapes = Mapping[str, Sequence[int]]


class NamedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model to time: the file itself where nothing had to be changed in it, else the bytes."""

    name: str
    source: str
    model: Path | bytes
    sha256: str
    size_bytes: int
    inputs: tuple[Input, ...]

    def read(self) -> bytes:
        """The serialized model with its weights inside."""
        return self.model if isinstance(self.model, bytes) else self.model.read_bytes()


def open_models(
    asked: Sequence[str], *, shapes: Shapes | None = None, image_size: int | None = None, outputs: int | None = None
) -> tuple[NamedModel, ...]:
    """The models that the arguments name, in their order, each with a name of its own; ``shapes`` fixes inputs by name.

    An argument is a published network's name with or without @WIDTH (at ``image_size`` pixels for ``outputs`` classes), an ONNX
    file, a folder of them, or a finished run of nas.search, of which the front is taken.

    Raises:
        InvalidModel: no such file, no ONNX model, nothing in a folder, open dimensions, or a shape that fits no input.
        UnknownName: neither a file nor a published network.
    """
    shapes = shapes or {}
    found = [model for argument in asked for model in _open(argument, shapes, image_size, outputs)]
    if (image_size or outputs) and not any(map(_is_published, asked)):
        raise InvalidModel("--image-size and --outputs are for published networks by name; fix a file's input with --shape NAME=1,3,H,W")
    names = {value.name for model in found for value in model.inputs}
    for name in shapes:
        if name not in names:
            raise UnknownName.among("input in --shape", name, sorted(names))
    return tuple(msgspec.structs.replace(m, name=name) for m, name in zip(found, _distinct(found), strict=True))


def _open(argument: str, shapes: Shapes, image_size: int | None, outputs: int | None) -> list[NamedModel]:
    if _is_published(argument):
        return [_published(argument, image_size or IMAGE_SIZE, outputs or OUTPUTS)]
    path = Path(argument)
    if path.is_dir():
        return [_open_file(file, name, shapes) for file, name in _in_folder(path)]
    if path.exists():
        return [_open_file(path, path.stem, shapes)]
    if path.suffix or len(path.parts) > 1:
        raise InvalidModel(f"there is no file or folder {argument}")
    raise UnknownName.among("model", argument, [*BASELINES, "a path to an .onnx file", "a folder"])


def _is_published(argument: str) -> bool:
    return argument.partition("@")[0] in BASELINES


def _published(argument: str, image_size: int, outputs: int) -> NamedModel:
    from latency.onnx_graph import emit

    name, factor = published(argument)
    arch = baseline(name, width=factor, input_chw=(3, image_size, image_size), outputs=outputs)
    model = emit(arch)
    data = model.SerializeToString(deterministic=True)
    source = f"{name} x{factor:g}, {image_size} px, {outputs} outputs, weights made up"
    return _named(argument, source, data, data, inputs_of(model, argument))


def _in_folder(folder: Path) -> list[tuple[Path, str]]:
    """The models of a folder and their names: those of a run's front, by its manifest; else all .onnx files in it."""
    members = _front(folder / "manifest.json")
    if members is not None:
        if not members:
            raise InvalidModel(f"{folder / 'manifest.json'} lists no model that the search found")
        return members
    files = sorted(folder.glob("*.onnx"))
    if not files and (folder / "candidates.jsonl").exists():
        go_on = f"python -m nas.search --config {folder}/config.json --out {folder}"
        raise InvalidModel(f"the run {folder} has no front yet; finish it with: {go_on}")
    if not files:
        raise InvalidModel(f"the folder {folder} has no .onnx file in it")
    return [(file, file.stem) for file in files]


def _front(manifest: Path) -> list[tuple[Path, str]] | None:
    """Files and ids of the found networks that a run's manifest lists; None: there is none, or it is something else's."""
    if not manifest.exists():
        return None
    try:
        content: Any = msgspec.json.decode(manifest.read_bytes())  # Any: JSON
        entries = content["models"]
        return [(manifest.parent / entry["file"], str(entry["id"])) for entry in entries if not entry.get("baseline")]
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        return None


def _open_file(path: Path, name: str, shapes: Shapes) -> NamedModel:
    if not path.is_file():
        raise InvalidModel(f"there is no model file {path}")
    data, label = path.read_bytes(), str(path)
    model = _parse(data, label)
    has_outside_weights = _embed(model, path)
    has_new_shapes = fix_shapes(model, shapes, label)
    inputs = inputs_of(model, label)
    require_feedable(inputs, label)
    changed = model.SerializeToString(deterministic=True) if has_outside_weights or has_new_shapes else None
    return _named(name, label, path.resolve() if changed is None else changed, changed or data, inputs)


def _parse(data: bytes, label: str) -> "ModelProto":
    import onnx

    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's errors come without types
        raise InvalidModel(f"{label} is no ONNX model") from error
    # Protocol buffers read much that is none as an empty message.
    if not model.graph.node or not model.opset_import:
        raise InvalidModel(f"{label} is no ONNX model: it has no graph")
    return model


def _embed(model: "ModelProto", path: Path) -> bool:
    """Reads weights that lie in other files into the model; whether there were any."""
    from onnx.checker import ValidationError
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    outside = [t for t in _tensors(model.graph) if uses_external_data(t)]
    files = {entry.value for t in outside for entry in t.external_data if entry.key == "location"}
    missing = sorted(f for f in files if not (path.parent / f).is_file())
    if missing:
        raise InvalidModel(f"{path}: its weights lie in {missing[0]}, which is not in {path.parent}: put it beside the model")
    size = sum(_length(t, path) for t in outside)
    if size + path.stat().st_size > LARGEST_BYTES:
        raise InvalidModel(f"{path}: its weights are {size / 1e9:.1f} GB, and more than 2.1 GB cannot be sent to a device in one piece")
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise InvalidModel(f"{path}: its weights outside the file cannot be read: {reason}") from error
    return bool(outside)


def _tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    """All constants of a graph and of the graphs inside its nodes."""
    yield from graph.initializer
    for attribute in (a for node in graph.node for a in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _length(tensor: "TensorProto", path: Path) -> int:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return int(entries.get("length") or (path.parent / entries.get("location", "")).stat().st_size)


def _named(name: str, source: str, model: Path | bytes, data: bytes, inputs: tuple[Input, ...]) -> NamedModel:
    return NamedModel(name=name, source=source, model=model, sha256=sha256(data), size_bytes=len(data), inputs=inputs)


def _distinct(models: Sequence[NamedModel]) -> list[str]:
    """The names; those that occur again with their source, and the same source with a number."""
    times, seen, names = Counter(m.name for m in models), Counter[str](), []
    for model in models:
        name = model.name if times[model.name] == 1 else model.source if isinstance(model.model, Path) else model.name
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names
