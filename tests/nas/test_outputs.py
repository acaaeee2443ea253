import json
import shutil
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from latency import QUICK, open_device
from latency.console import open_console
from nas import outputs
from nas.calibration import Bin, Calibration
from nas.config import RunConfig
from nas.cost import Cost
from nas.errors import RunConflict
from nas.finals import Baseline
from nas.store import Candidate, Latency
from search_spaces import Architecture, Block, Head
from tests.nas.small import SPACE, config, opened

COST = Cost(params=10, macs=1000, peak_activation_bytes=100)


def final(out_ch: int, score: float, ms: float, baseline: str = "", problems: tuple[str, ...] = ()) -> Candidate:
    arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=out_ch),), head=Head(outputs=2))
    latency = Latency(p50_ms=ms, low_ms=ms * 0.9, high_ms=ms * 1.1, problems=problems)
    return Candidate(
        stage="final", status="trained", arch=arch, seed=0, score=score, test_score=score - 0.1, latency=latency, cost=COST,
        baseline=baseline,
    )


FINALS = [final(1, 0.9, 3.0), final(2, 0.6, 1.0), final(3, 0.95, 2.0, "mobilenet_v2 x0.5"), final(4, 0.5, 5.0, "mnasnet_a1 x1")]


def test_baselines_compete_with_the_found_members() -> None:
    # 3 ms at 0.9 is beaten by the baseline's 2 ms at 0.95
    assert outputs.non_dominated(FINALS) == {FINALS[1].id, FINALS[2].id}


def test_front_table_is_found_first_then_by_latency(tmp_path: Path) -> None:
    outputs.write_front(FINALS, tmp_path / "front.csv")
    table = pd.read_csv(tmp_path / "front.csv", dtype={"id": str})
    assert list(table["latency_p50_ms"]) == [1.0, 3.0, 2.0, 5.0]
    assert list(table["on_front"]) == [True, False, True, False]
    assert tuple(table.columns) == outputs.FRONT_COLUMNS


def test_front_table_keeps_what_is_wrong_with_a_measurement(tmp_path: Path) -> None:
    outputs.write_front([final(1, 0.5, 1.0, problems=("it drifts, slowly", "too few"))], tmp_path / "front.csv")
    assert pd.read_csv(tmp_path / "front.csv")["problems"][0] == "it drifts, slowly; too few"


def test_figure_is_a_png_and_leaves_no_other_file(tmp_path: Path) -> None:
    outputs.draw_front(FINALS, FINALS, tmp_path / "front.png", device="fake", epochs=(1, 2))
    assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["front.png"]


@pytest.mark.parametrize("kept", [FINALS[:1], FINALS[2:3]])
def test_figure_of_one_model_can_be_drawn(tmp_path: Path, kept: list[Candidate]) -> None:
    outputs.draw_front([], kept, tmp_path / "front.png", device="fake", epochs=(1, 2))


def test_baselines_are_kept_for_the_same_members_only(tmp_path: Path) -> None:
    found = [Baseline(label="mnasnet_a1 x1", arch=FINALS[3].arch, inside=True)]
    assert outputs.kept_baselines(tmp_path, FINALS[:2]) is None
    outputs.keep_baselines(tmp_path, FINALS[:2], found)
    assert outputs.kept_baselines(tmp_path, FINALS[:2]) == found
    assert outputs.kept_baselines(tmp_path, FINALS[:1]) is None


def test_run_is_complete_for_the_trials_and_budget_it_was_finished_with(finished: Path) -> None:
    given = config(finished.parent, sampler="tpe")
    assert outputs.is_complete(finished, given)
    assert not outputs.is_complete(finished, config(finished.parent, sampler="tpe", trials=9))
    assert not outputs.is_complete(finished, config(finished.parent, sampler="tpe", budget_s=60.0))
    assert not outputs.is_complete(finished.parent, given)


def environment(folder: Path, given: RunConfig) -> None:
    task, space = opened(given)
    (folder / "environment.json").write_text(outputs.environment_text(task, space, open_device("fake").info(), QUICK))


def test_same_data_and_space_are_no_conflict(tmp_path: Path) -> None:
    given = config(tmp_path)
    environment(tmp_path, given)
    (tmp_path / "candidates.jsonl").write_text("{}\n")
    outputs.refuse_changed(tmp_path, *opened(given))


def test_changed_space_is_refused_once_there_are_rows(tmp_path: Path) -> None:
    environment(tmp_path, config(tmp_path))
    changed = opened(config(tmp_path, SPACE.replace("kernel = [3, 5]", "kernel = [3, 7]")))
    outputs.refuse_changed(tmp_path, *changed)
    (tmp_path / "candidates.jsonl").write_text("{}\n")
    with pytest.raises(RunConflict, match="another content of the space small"):
        outputs.refuse_changed(tmp_path, *changed)


def test_environment_of_an_older_version_is_no_conflict(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"python": "3.11"}))
    (tmp_path / "candidates.jsonl").write_text("{}\n")
    outputs.refuse_changed(tmp_path, *opened(config(tmp_path)))


def test_final_table_warns_of_measurements_not_to_trust(tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(finished / "config.json", tmp_path)
    outputs.write_front([final(1, 0.5, 1.0, problems=("it drifts",)), final(2, 0.6, 2.0)], tmp_path / "front.csv")
    outputs.show(tmp_path, open_console())
    (warned,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert "it drifts" in warned
    assert "1 of 2 models" in warned


def test_another_device_or_runtime_is_refused_once_there_are_rows(tmp_path: Path) -> None:
    environment(tmp_path, config(tmp_path))
    other = msgspec.structs.replace(open_device("fake").info(), runtime="another runtime")
    outputs.refuse_other_device(tmp_path, other)
    (tmp_path / "candidates.jsonl").write_text("{}\n")
    outputs.refuse_other_device(tmp_path, open_device("fake").info())
    with pytest.raises(RunConflict, match=r"and this is .* another runtime"):
        outputs.refuse_other_device(tmp_path, other)


def judged(row: Candidate) -> Candidate:
    bins = (*(Bin(images=0, confidence=0.0, accuracy=0.0),) * 14, Bin(images=9, confidence=0.97, accuracy=0.9))
    return msgspec.structs.replace(row, test_calibration=Calibration(ece=0.07, nll=0.3, brier=0.2, bins=bins))


def test_front_table_says_how_far_confidence_can_be_believed(tmp_path: Path) -> None:
    outputs.write_front([judged(FINALS[0]), FINALS[1]], tmp_path / "front.csv")
    table = pd.read_csv(tmp_path / "front.csv", dtype={"id": str}).set_index("id")
    assert list(table.loc[FINALS[0].id, ["test_ece", "test_nll", "test_brier"]]) == [0.07, 0.3, 0.2]
    assert table.loc[FINALS[1].id, ["test_ece", "test_nll", "test_brier"]].isna().all()  # a row of an older version


def test_diagram_is_drawn_of_the_rows_that_have_the_figures(tmp_path: Path) -> None:
    outputs.draw_calibration(FINALS, tmp_path / "none.png")
    outputs.draw_calibration([judged(r) for r in FINALS], tmp_path / "all.png")
    assert [p.name for p in tmp_path.iterdir()] == ["all.png"]
