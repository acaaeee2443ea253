import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from latency.model_inputs import InvalidModel, fix_shapes, inputs_of, made_up, parse_shapes, require_feedable
from tests.latency.models import conv_net, one_node
from tests.latency.profiled import open_image, token_model


def test_shapes_are_read_by_name() -> None:
    assert parse_shapes(["x=1,3,8,8", "a=b=7"]) == {"x": (1, 3, 8, 8), "a=b": (7,)}


@pytest.mark.parametrize("text", ["1,3,8,8", "=1", "x=", "x=1,", "x=0", "x=-1", "x=1x3", "x=1.5", "x=²"])
def test_malformed_shape_is_quoted(text: str) -> None:
    with pytest.raises(InvalidModel, match="--shape must be NAME=D,D,…") as caught:
        parse_shapes([text])
    assert repr(text) in str(caught.value)


def test_shape_given_twice_is_refused() -> None:
    with pytest.raises(InvalidModel, match="gives input 'x' twice"):
        parse_shapes(["x=1", "x=2"])


def test_inputs_are_listed_with_types_and_open_dimensions_by_name() -> None:
    (image,) = inputs_of(open_image(), "m")
    assert (image.name, image.dtype, image.dims) == ("x", "float", ("N", 4, "H", "W"))
    assert [(v.name, v.dtype) for v in inputs_of(token_model(), "m")] == [("ids", "int64"), ("mask", "int64"), ("bias", "float")]


def test_weights_that_older_files_list_as_inputs_are_left_out() -> None:
    model = conv_net()
    model.graph.input.append(helper.make_tensor_value_info("w0", TensorProto.FLOAT, [4, 4, 3, 3]))
    assert [v.name for v in inputs_of(model, "m")] == ["x"]


def test_input_that_is_no_tensor_is_refused_by_name() -> None:
    model = conv_net()
    model.graph.input.append(helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None))
    with pytest.raises(InvalidModel, match="m: input 's' is a sequence"):
        inputs_of(model, "m")


def test_text_input_is_refused_by_name() -> None:
    with pytest.raises(InvalidModel, match="m: input 'x' is of type string"):
        require_feedable(inputs_of(one_node("Identity", dtype=TensorProto.STRING), "m"), "m")


def test_open_batch_is_fed_as_one() -> None:
    inputs = inputs_of(conv_net(batch="N"), "m")
    require_feedable(inputs, "m")
    assert made_up(inputs)["x"].shape == (1, 4, 8, 8)


def test_open_dimension_is_refused_with_the_flag_that_fixes_it() -> None:
    with pytest.raises(InvalidModel, match=r"m: input 'x' has shape \[N, 4, H, W\]; fix it with --shape x=1,4,224,224"):
        require_feedable(inputs_of(open_image(), "m"), "m")


def test_input_without_a_shape_is_refused_with_the_flag_that_fixes_it() -> None:
    model = one_node("Relu")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(InvalidModel, match="m: input 'x' has no shape; fix it with --shape x=1,3,224,224"):
        require_feedable(inputs_of(model, "m"), "m")


def test_fixed_shape_reaches_every_use_of_its_names() -> None:
    model = token_model(length="L")
    assert fix_shapes(model, {"ids": (1, 9)}, "m")
    assert [v.dims for v in inputs_of(model, "m")] == [(1, 9), (1, 9), (5,)]
    assert [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim] == [1, 9, 5]
    onnx.checker.check_model(model, full_check=True)


def test_shape_of_another_models_input_changes_nothing() -> None:
    model = open_image()
    assert not fix_shapes(model, {"y": (1, 2)}, "m")
    assert model == open_image()


def test_input_without_a_shape_takes_the_given_one() -> None:
    model = one_node("Relu")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert fix_shapes(model, {"x": (2, 3)}, "m")
    assert inputs_of(model, "m")[0].dims == (2, 3)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (1, 4, 8)}, r"has shape \[N, 4, H, W\], and --shape gives 3 dimensions: 1,4,8"),
        ({"x": (1, 3, 8, 8)}, "wants 1,3,8,8: only open dimensions can be fixed"),
    ],
)
def test_shape_that_does_not_fit_is_refused(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        fix_shapes(open_image(), shapes, "m")


def test_one_name_cannot_be_two_numbers() -> None:
    with pytest.raises(InvalidModel, match="makes L both 7 and 8"):
        fix_shapes(token_model(length="L"), {"ids": (1, 7), "mask": (1, 8)}, "m")


def test_made_up_values_are_equal_every_time_and_of_the_declared_types() -> None:
    inputs = inputs_of(token_model(), "m")
    first, second = made_up(inputs), made_up(inputs)
    assert {name: (v.dtype.name, v.shape) for name, v in first.items()} == {
        "ids": ("int64", (1, 6)), "mask": ("int64", (1, 6)), "bias": ("float32", (5,)),
    }  # fmt: skip
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert set(first["ids"].ravel()) <= {0, 1}
