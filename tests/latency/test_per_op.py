from pathlib import Path
from typing import Any

import onnx
import pytest

from latency import Failed, TimingPlan
from latency.model_files import NamedModel, open_models
from latency.per_op import WARMUP_RUNS, draw, lines, profile_ops, read_profile
from tests.latency.models import conv_net, one_node
from tests.latency.profiled import saved, token_model

PLAN = TimingPlan(opt_level="disabled")
IMAGE, PLAIN, DEPTHWISE = [1, 8, 9, 9], [4, 8, 3, 3], [8, 1, 5, 5]


def opened(path: Path, model: onnx.ModelProto) -> NamedModel:
    return open_models([str(saved(path / "net.onnx", model))])[0]


def run(start: int, *nodes: tuple[str, str, int]) -> list[dict[str, Any]]:
    """Trace events of one run: (name, op, microseconds) of each node."""
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "ts": start, "dur": 100, "args": {}}]
    for i, (name, op, dur) in enumerate(nodes):
        shapes = [{"float": IMAGE}, {"float": DEPTHWISE if "dw" in name else PLAIN}] if op == "Conv" else []
        args = {"op_name": op, "node_index": str(i), "input_type_shape": shapes}
        events.append({"cat": "Node", "name": f"{name}_kernel_time", "ts": start + i, "dur": dur, "args": args})
    return events


def test_shares_are_those_of_the_trace_after_the_warm_up() -> None:
    cold = [e for i in range(WARMUP_RUNS) for e in run(1000 * i, ("a", "Conv", 900), ("b", "Relu", 1))]
    warm = [e for i in range(8) for e in run(10_000 + 1000 * i, ("a", "Conv", 30), ("dw", "Conv", 50), ("b", "Relu", 20))]
    found = read_profile([*cold, *warm], model="m")
    assert found.runs == 8
    assert [(n.name, n.op, n.ms) for n in found.nodes] == [("dw", "Conv", 0.05), ("a", "Conv", 0.03), ("b", "Relu", 0.02)]
    assert [(kind, nodes) for kind, _, nodes in found.by_kind] == [("Conv 5×5 depthwise", 1), ("Conv 3×3", 1), ("Relu", 1)]
    assert [share for _, share, _ in found.by_kind] == pytest.approx([0.5, 0.3, 0.2])


def test_whole_microseconds_average_and_outliers_do_not_count() -> None:
    durations = [1, 2, 1, 2, 1, 2, 1, 900]  # the middle half of them sorted: 1, 1, 2, 2
    events = [e for i, d in enumerate([5] * WARMUP_RUNS + durations) for e in run(1000 * i, ("a", "Relu", d))]
    assert read_profile(events, model="m").nodes[0].ms == 0.0015


def test_nodes_inside_a_branch_count_once() -> None:
    events = [e for i in range(WARMUP_RUNS + 4) for e in run(1000 * i, ("choice", "If", 50), ("inner", "Relu", 40), ("inner2", "Add", 8))]
    assert [n.name for n in read_profile(events, model="m").nodes] == ["inner", "inner2"]


def test_node_that_runs_several_times_a_run_counts_all_of_them() -> None:
    twice = run(0, ("a", "Relu", 10))[1]
    events = [e for i in range(WARMUP_RUNS + 4) for e in (*run(1000 * i, ("a", "Relu", 10)), {**twice, "ts": 1000 * i + 50})]
    assert read_profile(events, model="m").nodes[0].ms == 0.02


def test_profile_without_runs_is_refused() -> None:
    with pytest.raises(Failed, match="m: ONNX Runtime's profile holds 1 runs"):
        read_profile(run(0, ("a", "Relu", 1)), model="m")


def test_every_node_of_the_unoptimised_graph_is_listed_by_name_and_kind(tmp_path: Path) -> None:
    model = conv_net(depth=3)
    for i, node in enumerate(model.graph.node):
        node.name = f"layer{i}"
    found = profile_ops(opened(tmp_path, model), PLAN)
    assert {n.name for n in found.nodes} == {"layer0", "layer1", "layer2"}
    assert {(n.op, n.kind) for n in found.nodes} == {("Conv", "Conv 3×3")}
    assert sum(share for _, share, _ in found.by_kind) == pytest.approx(1)
    assert found.runs >= 20


def test_nameless_nodes_and_several_inputs_are_profiled(tmp_path: Path) -> None:
    found = profile_ops(opened(tmp_path, token_model()), PLAN)
    assert {n.op for n in found.nodes} == {"Gather", "Cast", "Unsqueeze", "Mul", "MatMul", "Add"}


def test_profiles_leave_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(tmp_path, conv_net())
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("tempfile.tempdir", str(work))
    profile_ops(model, PLAN)
    assert list(work.iterdir()) == []


def test_unknown_operator_fails_by_the_models_name(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"ONNX Runtime cannot load net: .*NoSuchOperator"):
        profile_ops(opened(tmp_path, one_node("NoSuchOperator")), PLAN)


def test_lines_show_a_full_bar_for_the_largest_share_and_half_of_it_for_half_the_share() -> None:
    events = [e for i in range(WARMUP_RUNS + 4) for e in run(1000 * i, ("a", "Relu", 60), ("b", "Add", 30))]
    title, first, second, *_ = lines(read_profile(events, model="m"))
    assert title == "m: 2 operators, 0.0900 ms in them under the profiler"
    assert (first.count("█"), second.count("█")) == (32, 16)
    assert "66.7%" in first


def test_operators_below_a_microsecond_have_no_share_and_are_still_listed() -> None:
    found = read_profile([e for i in range(WARMUP_RUNS + 4) for e in run(1000 * i, ("a", "Relu", 0))], model="m")
    assert found.by_kind == (("Relu", 0.0, 1),)
    assert "a" in lines(found)[-1]


def test_model_that_is_computed_while_loading_says_so(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[1] x) => (float[2] y) <float[2] c = {1, 2}> { y = Neg(c) }"""
    found = profile_ops(opened(tmp_path, onnx.parser.parse_model(text)), TimingPlan())
    assert lines(found) == ("net: ONNX Runtime has computed everything while loading, and no operator is left",)


def test_drawing_is_a_png(tmp_path: Path) -> None:
    events = [e for i in range(WARMUP_RUNS + 4) for e in run(1000 * i, ("a", "Relu", 60), ("b", "Add", 30))]
    draw([read_profile(events, model="m")], tmp_path / "shares.png")
    assert (tmp_path / "shares.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["shares.png"]
