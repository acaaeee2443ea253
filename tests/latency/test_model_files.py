import hashlib
import json
from pathlib import Path

import onnx
import pytest

from latency.model_files import open_models
from latency.model_inputs import InvalidModel
from search_spaces.errors import InvalidSpace, UnknownName
from tests.latency.models import conv_net
from tests.latency.profiled import open_image, outside_weights, saved


def run_folder(path: Path) -> Path:
    """What a finished search leaves, as far as its front is concerned: two found networks and a baseline."""
    entries = []
    for ch, (name, baseline) in zip((4, 8, 12), (("aaa", ""), ("bbb", ""), ("ccc", "mobilenet_v2 x0.35")), strict=True):
        saved(path / "models" / f"{name}.onnx", conv_net(ch=ch))
        entries.append({"id": name, "baseline": baseline, "file": f"models/{name}.onnx"})
    (path / "manifest.json").write_text(json.dumps({"input": {}, "models": entries}))
    return path


def test_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx")
    (model,) = open_models([str(path)])
    assert (model.name, model.model) == ("net", path.resolve())
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.read() == path.read_bytes()


def test_any_suffix_will_do_for_a_file(tmp_path: Path) -> None:
    assert open_models([str(saved(tmp_path / "net.model"))])[0].name == "net"


def test_folder_gives_its_onnx_files_by_name(tmp_path: Path) -> None:
    saved(tmp_path / "b.onnx")
    outside_weights(tmp_path / "a.onnx")
    (tmp_path / "notes.txt").write_text("no model")
    assert [m.name for m in open_models([str(tmp_path)])] == ["a", "b"]


def test_folder_without_models_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"has no \.onnx file in it"):
        open_models([str(tmp_path)])


def test_run_gives_its_front_without_the_baselines(tmp_path: Path) -> None:
    assert [m.name for m in open_models([str(run_folder(tmp_path))])] == ["aaa", "bbb"]


def test_models_of_a_run_are_an_ordinary_folder(tmp_path: Path) -> None:
    assert [m.name for m in open_models([str(run_folder(tmp_path) / "models")])] == ["aaa", "bbb", "ccc"]


def test_run_whose_model_is_gone_is_refused_by_the_file(tmp_path: Path) -> None:
    run_folder(tmp_path)
    (tmp_path / "models" / "bbb.onnx").unlink()
    with pytest.raises(InvalidModel, match=r"there is no model file .*bbb\.onnx"):
        open_models([str(tmp_path)])


def test_unfinished_run_is_refused_with_the_command_that_finishes_it(tmp_path: Path) -> None:
    (tmp_path / "candidates.jsonl").write_text("")
    with pytest.raises(InvalidModel, match=r"has no front yet; finish it with: python -m nas\.search --config"):
        open_models([str(tmp_path)])


@pytest.mark.parametrize("manifest", ["no json", "[]", "{}", '{"models": 3}', '{"models": [3]}', '{"models": [{"id": 1}]}'])
def test_manifest_of_something_else_leaves_a_folder_ordinary(manifest: str, tmp_path: Path) -> None:
    saved(tmp_path / "net.onnx")
    (tmp_path / "manifest.json").write_text(manifest)
    assert [m.name for m in open_models([str(tmp_path)])] == ["net"]


def test_published_network_is_emitted_at_its_width_size_and_outputs() -> None:
    (model,) = open_models(["mnasnet_a1@0.5"], image_size=32, outputs=7)
    graph = onnx.load_model_from_string(model.read()).graph
    assert model.inputs[0].dims == (1, 3, 32, 32)
    assert graph.output[0].type.tensor_type.shape.dim[1].dim_value == 7
    stem = next(t for t in graph.initializer if len(t.dims) == 4)
    assert stem.dims[0] == 16  # half of MnasNet-A1's 32


def test_misspelt_network_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mobilenet_v2'"):
        open_models(["mobilenet_v22"])


@pytest.mark.parametrize("width", ["half", "", "0", "nan", "-1"])
def test_width_that_is_none_is_refused(width: str) -> None:
    with pytest.raises(InvalidSpace, match="width"):
        open_models([f"mobilenet_v2@{width}"])


@pytest.mark.parametrize("path", ["nowhere.onnx", "no/where"])
def test_missing_path_is_named(path: str) -> None:
    with pytest.raises(InvalidModel, match=f"there is no file or folder {path}"):
        open_models([path])


@pytest.mark.parametrize("content", [b"", b"# not a model\n", b"\x08\x08", b"\xff" * 64])
def test_file_that_is_no_model_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(InvalidModel, match=r"x\.onnx is no ONNX model"):
        open_models([str(tmp_path / "x.onnx")])


def test_weights_outside_the_file_are_read_in(tmp_path: Path) -> None:
    (model,) = open_models([str(outside_weights(tmp_path / "net.onnx"))])
    plain = conv_net()
    inside = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_model_from_string(model.read()).graph.initializer}
    assert all((inside[t.name] == onnx.numpy_helper.to_array(t)).all() for t in plain.graph.initializer)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = outside_weights(tmp_path / "net.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InvalidModel, match=r"its weights lie in weights\.bin, which is not in"):
        open_models([str(path)])


def test_cut_weights_are_refused(tmp_path: Path) -> None:
    path = outside_weights(tmp_path / "net.onnx")
    (tmp_path / "weights.bin").write_bytes(b"\0" * 10)
    with pytest.raises(InvalidModel, match="its weights outside the file cannot be read"):
        open_models([str(path)])


def test_weights_too_large_for_one_message_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = outside_weights(tmp_path / "net.onnx")
    with (tmp_path / "weights.bin").open("r+b") as file:
        file.truncate(2**32)  # a hole: takes no room on disk
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = str(2**31) if entry.key == "length" else entry.value
    onnx.save(model, path)
    with pytest.raises(InvalidModel, match=r"its weights are 4\.3 GB, and more than 2\.1 GB cannot be sent"):
        open_models([str(path)])


def test_open_size_is_fixed_by_name_for_the_models_that_have_it(tmp_path: Path) -> None:
    files = [str(saved(tmp_path / "open.onnx", open_image())), str(saved(tmp_path / "net.onnx", conv_net()))]
    images, net = open_models(files, shapes={"x": (1, 4, 8, 8)})
    assert isinstance(images.model, bytes)
    assert images.inputs[0].dims == (1, 4, 8, 8)
    assert net.model == tmp_path.resolve() / "net.onnx"


def test_shape_of_an_input_that_no_model_has_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown input in --shape 'xx'; did you mean 'x'\?"):
        open_models([str(saved(tmp_path / "net.onnx"))], shapes={"xx": (1, 4, 8, 8)})


def test_image_size_is_refused_for_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="--image-size and --outputs are for published networks"):
        open_models([str(saved(tmp_path / "net.onnx"))], image_size=32)


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = [str(saved(tmp_path / folder / "net.onnx")) for folder in "ab"]
    names = [m.name for m in open_models([*files, files[0]])]
    assert names == [files[0], files[1], f"{files[0]} (2)"]
