import hashlib
import json
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import latency
from latency import open_device
from latency.lease import leased, place_of
from latency.plan import QUICK
from latency.profile import main
from latency.store import open_store
from search_spaces.errors import NasError
from tests.latency.models import conv_net, one_node
from tests.latency.profiled import open_image, outside_weights, saved, token_model
from tests.latency.taken import taken

ROOT = Path(latency.__file__).resolve().parents[1]
BLOCKED = """
import importlib.abc, runpy, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "nas"):
            raise ImportError("the test forbids " + name)
sys.meta_path.insert(0, Blocked())
runpy.run_module("latency.profile", run_name="__main__", alter_sys=True)
"""
LIGHT = """
import sys
from latency.profile import main
from latency.store import open_store
main(["--help"], standalone_mode=False)
print([m for m in ("matplotlib", "nas", "onnx", "onnxruntime", "pandas", "rich", "torch") if m in sys.modules])
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def started(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)


def test_table_shows_latency_interval_and_verdict_of_every_model_on_every_device(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), saved(tmp_path / "b.onnx"), "--device", "fake:ms=2", "--device", "fake:ms=3")
    assert done.exit_code == 0
    rows = [line.split()[:4] for line in done.stdout.splitlines()[3:]]
    assert rows == [[name, f"fake:ms={n}", f"{n}.00", "ms"] for n in (2, 3) for name in "ab"]
    assert all(line.endswith("trustworthy") for line in done.stdout.splitlines()[3:])


def test_doubtful_figure_is_explained_in_a_sentence(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), "--device", "fake:noise=0.5", "--plan", "quick")
    assert done.exit_code == 0
    row, reason = done.stdout.splitlines()[3:]
    assert row.endswith("  doubtful")
    assert reason.startswith("doubtful: a on fake:noise=0.5: the median is known to ±")


def test_plan_is_said_first_and_a_line_follows_the_work(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), saved(tmp_path / "b.onnx"), "--device", "fake", "--plan", "quick", "--threads", "2")
    said = done.stderr.splitlines()
    where = "on fake (no processor, 1 core) with fake 1"
    assert said[0] == f"timing 2 models in turns {where}: 2 threads, quick plan, 1 process, at most about 1.7 s"
    assert said[-2].startswith("timed: 2 of 2 in ")
    assert said[-1] == "outputs not compared with this computer's ONNX Runtime: fake gives none"


def test_this_computer_measures_a_published_network() -> None:
    done = call("mobilenet_v3_small@0.35", "--image-size", 32, "--outputs", 10, "--plan", "quick")
    assert done.exit_code == 0
    name, device, figure, unit = done.stdout.splitlines()[3].split()[:4]
    assert (name, device, unit) == ("mobilenet_v3_small@0.35", "local", "ms")
    assert float(figure) > 0


def test_models_with_several_whole_number_inputs_and_weights_outside_are_measured(tmp_path: Path) -> None:
    files = saved(tmp_path / "tokens.onnx", token_model(length="L")), outside_weights(tmp_path / "net.onnx")
    done = call(*files, "--shape", "ids=1,16", "--plan", "quick")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()[3:5]] == ["tokens", "net"]


def test_json_has_figures_conditions_and_hashes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.onnx")
    found = json.loads(call(path, "--device", "fake", "--plan", "quick", "--json").stdout)
    (expected,) = open_device("fake").time([path], QUICK)
    (result,) = found["results"]
    assert (result["p50_ms"], result["low_ms"], result["high_ms"]) == (expected.p50_ms, *expected.ci_ms)
    assert (result["is_trustworthy"], result["problems"], result["runs"]) == (True, [], expected.runs)
    assert found["models"][0]["sha256"] == expected.model_sha256
    assert (found["plan"]["name"], found["plan"]["threads"]) == ("quick", 1)
    assert found["devices"]["fake"]["id"] == expected.device.id
    assert "sessions" not in result


def test_file_holds_every_sample(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.onnx")
    done = call(path, "--device", "fake", "--plan", "quick", "--out", tmp_path / "found.json")
    (expected,) = open_device("fake").time([path], QUICK)
    (result,) = json.loads((tmp_path / "found.json").read_text())["results"]
    (session,) = result["sessions"]
    for name, rounds in (("samples_ns", expected.samples_ns), ("cpu_ns", expected.cpu_ns)):
        assert session[name] == [list(r) for r in rounds]
    assert done.stderr.splitlines()[-1] == f"wrote {tmp_path / 'found.json'}"


def test_comparison_says_how_many_times_as_fast(tmp_path: Path) -> None:
    # The fake device takes 2 µs a node, and these graphs hardly multiply: 10 nodes against 2 is 5, within its 2 % jitter each.
    files = saved(tmp_path / "long.onnx", conv_net(ch=1, depth=10, side=4)), saved(tmp_path / "short.onnx", conv_net(ch=1, depth=2, side=4))
    done = call(*files, "--device", "fake", "--compare", "--json")
    (found,) = json.loads(done.stdout)["comparisons"].values()
    assert 1 / found["ratio"] == pytest.approx(5, rel=0.06)
    assert found["low"] < found["ratio"] < found["high"]
    assert found["text"].startswith("short is ")
    assert " as fast as long; 90 pairs of rounds in 3 sessions" in found["text"]


def test_runner_shows_that_its_outputs_are_the_same(tmp_path: Path) -> None:
    try:
        open_device("local:runner").close()
    except NasError as error:
        pytest.skip(f"this computer has no runner: {error}")
    done = call(saved(tmp_path / "a.onnx"), "--device", "local:runner", "--plan", "quick")
    assert done.exit_code == 0
    assert " identical " in done.stdout.splitlines()[3]


def test_model_is_not_faster_than_its_copy(tmp_path: Path) -> None:
    files = saved(tmp_path / "a.onnx"), saved(tmp_path / "b.onnx")
    done = call(*files, "--device", "fake", "--compare")
    assert "fake: no difference beyond the noise: a is 1.000× (1.000–1.000) as fast as b" in done.stdout


def test_doubtful_comparison_says_so(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), saved(tmp_path / "b.onnx"), "--device", "fake:noise=0.5", "--plan", "quick", "--compare")
    assert done.stdout.splitlines()[-1].endswith("; doubtful, see above")


def test_comparison_takes_exactly_two_models(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), "--device", "fake", "--compare")
    assert (done.exit_code, done.stderr) == (2, "error: --compare takes exactly two models, got 1: a\n")


def test_operators_are_shown_and_drawn(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), "--device", "fake", "--png", tmp_path / "shares.png")
    assert done.exit_code == 0
    assert "Conv 3×3" in done.stdout
    assert (tmp_path / "shares.png").read_bytes().startswith(b"\x89PNG")


def test_operators_stand_in_the_json(tmp_path: Path) -> None:
    found = json.loads(call(saved(tmp_path / "a.onnx"), "--device", "fake", "--per-op", "--json").stdout)
    assert sum(node["share"] for node in found["per_op"][0]["by_node"]) == pytest.approx(1)


def test_model_that_cannot_run_is_one_line_and_exit_1(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "odd.onnx", one_node("NoSuchOperator")), saved(tmp_path / "a.onnx"), "--plan", "quick", "--per-op")
    assert done.exit_code == 1
    (line,) = (text for text in done.stderr.splitlines() if text.startswith("error: "))
    assert line.startswith("error: local: ONNX Runtime cannot load odd: ")
    assert "NoSuchOperator" in line
    assert done.stdout.splitlines()[3].startswith("a ")


def test_lost_device_is_one_line_and_exit_1(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), saved(tmp_path / "b.onnx"), "--device", "fake:lost=1")
    assert (done.exit_code, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == ["error: fake:lost=1: the device fake is gone after 1 models, as its option lost=1 asks"]


def test_error_that_begins_with_its_device_has_it_once(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), "--device", "local:python", "--provider", "nnapi", "--plan", "quick")
    assert done.exit_code == 1
    assert "error: local: this computer's onnxruntime has no provider nnapi" in done.stderr


def test_no_wait_for_a_hot_device_may_be_asked_for(tmp_path: Path) -> None:
    done = call(saved(tmp_path / "a.onnx"), "--device", "fake", "--cool-wait", "0s", "--json")
    assert (done.exit_code, json.loads(done.stdout)["plan"]["settle_s"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.onnx"], "there is no file or folder nowhere.onnx"),
        (["mobilenet_v22"], "unknown model 'mobilenet_v22'; did you mean 'mobilenet_v2'?"),
        (["mobilenet_v2", "--device", "fakes"], "unknown device 'fakes'; did you mean 'fake'?"),
        (["mobilenet_v2", "--device", "fake:ms=x"], "fake: ms and sleep_ms take"),
        (["mobilenet_v2", "--threads", "0"], "timing plan: threads must be at least 1, got 0"),
        (["mobilenet_v2", "--shape", "224"], "--shape must be NAME=D,D,…"),
        (["mobilenet_v2", "--out", "no/where/a.json"], "there is no folder no/where to write a.json to"),
        (["mobilenet_v2", "--out", "/proc/a.json"], "the folder /proc takes no files (no such file or directory): write a.json elsewhere"),
    ],
)
def test_mistake_is_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: {message}")


def test_model_is_not_overwritten_by_its_own_figures(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.onnx")
    before = path.read_bytes()
    done = call(path, "--device", "fake", "--out", path)
    assert (done.exit_code, done.stderr) == (2, f"error: {path} is a model to be read: name another file to write to\n")
    assert path.read_bytes() == before


def test_open_size_is_one_line_that_names_the_flag(tmp_path: Path) -> None:
    path = saved(tmp_path / "images.onnx", open_image())
    done = call(path, "--device", "fake")
    expected = f"error: {path}: input 'x' has shape [N, 4, H, W]; fix it with --shape x=1,4,224,224\n"
    assert (done.exit_code, done.stderr) == (2, expected)


def test_no_model_is_wrong_usage() -> None:
    assert call().exit_code == 2


def test_measuring_needs_neither_torch_nor_the_search() -> None:
    arguments = ("mobilenet_v2@0.35", "--image-size", 32, "--plan", "quick", "--per-op")
    done = started(BLOCKED, *arguments, "--device", "local", "--device", "fake")
    assert done.returncode == 0, done.stderr
    assert "mobilenet_v2@0.35" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    done = started(LIGHT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A model whose latency on this computer an earlier run has taken: a whole second, which none would take now."""
    model, now = conv_net(ch=4), datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    sha256 = hashlib.sha256(saved(tmp_path / "a.onnx", model).read_bytes()).hexdigest()
    with closing(open_device("local")) as device, closing(open_store()) as store:
        store.keep([taken(sha256, 1000.0, device=device.info(), at=now)], "quick")
    return tmp_path / "a.onnx"


def test_figure_of_an_earlier_run_is_shown_with_its_day(stored: Path) -> None:
    done = call(stored, saved(stored.parent / "b.onnx", conv_net(ch=6)), "--plan", "quick")
    assert done.exit_code == 0, done.output
    today = datetime.now(UTC).date().isoformat()
    assert "1000 ms" in done.stdout
    assert f"trustworthy, of {today}" in done.stdout
    assert f"1 of 2 figures were taken earlier ({today}), not beside the others; --fresh takes all now" in done.stderr


def test_device_that_another_process_measures_on_is_not_waited_for_where_all_is_known(stored: Path) -> None:
    with closing(open_device("local")) as device, leased(place_of("local", device), wait_s=0, say=pytest.fail):
        done = call(stored, "--plan", "quick")
    assert (done.exit_code, "waiting for" in done.stderr) == (0, False)


@pytest.mark.parametrize("flags", [("--fresh",), ("--threads", "2")])
def test_figure_is_taken_again_when_asked_or_under_other_conditions(stored: Path, flags: tuple[str, ...]) -> None:
    done = call(stored, "--plan", "quick", "--json", *flags)
    (result,) = json.loads(done.stdout)["results"]
    assert not result["is_stored"]
    assert result["p50_ms"] < 500


def test_comparison_takes_both_models_now(stored: Path) -> None:
    done = call(stored, saved(stored.parent / "b.onnx", conv_net(ch=6)), "--plan", "quick", "--compare", "--json")
    assert [r["is_stored"] for r in json.loads(done.stdout)["results"]] == [False, False]
