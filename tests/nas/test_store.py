import os
from pathlib import Path

import msgspec
import pytest

from nas.config import RunConfig
from nas.distillation.lesson import LessonConfig
from nas.errors import NasError, RunConflict, Stopped
from nas.store import Candidate, RunFolder, check_out, load_run, open_run, read_rows, write_atomic
from search_spaces import Architecture, Block, Head


def candidate(number: int, **changed: object) -> Candidate:
    arch = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=8 + number),), head=Head(outputs=2))
    return msgspec.structs.replace(Candidate(stage="search", status="trained", arch=arch, seed=1, number=number, score=0.5), **changed)


def test_rows_come_back_as_they_were_appended(tmp_path: Path) -> None:
    rows = tuple(candidate(n, picks={"a.op": "conv", "a.width": 1.0, "a.kernel": 3}) for n in range(3))
    with open_run(tmp_path / "run", RunConfig()) as folder:
        for row in rows:
            folder.append(row)
    with open_run(tmp_path / "run", RunConfig()) as folder:
        assert folder.rows == rows


def test_picks_keep_the_type_of_their_menu(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RunConfig()) as folder:
        folder.append(candidate(0, picks={"w": 1.0, "k": 1}))
    (row,) = read_rows(tmp_path / "run" / "candidates.jsonl")
    assert {name: type(value) for name, value in row.picks.items()} == {"w": float, "k": int}


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_torn_last_line_is_dropped_and_cut_off(tmp_path: Path, cut: int) -> None:
    with open_run(tmp_path / "run", RunConfig()) as folder:
        folder.append(candidate(0))
        folder.append(candidate(1))
    path = tmp_path / "run" / "candidates.jsonl"
    os.truncate(path, path.stat().st_size - cut)
    with open_run(tmp_path / "run", RunConfig()) as folder:
        assert [r.number for r in folder.rows] == [0]
        folder.append(candidate(1))
    assert [r.number for r in read_rows(path)] == [0, 1]


@pytest.mark.parametrize("broken", [b"{", b"", b'{"stage": "search"}', b"\xff\xfe"])
def test_broken_line_in_the_middle_is_refused_by_file_and_line(tmp_path: Path, broken: bytes) -> None:
    good = msgspec.json.encode(candidate(0))
    (tmp_path / "candidates.jsonl").write_bytes(good + b"\n" + broken + b"\n" + good + b"\n")
    with pytest.raises(NasError, match=r"candidates\.jsonl:2: not a candidate"):
        read_rows(tmp_path / "candidates.jsonl")


def test_full_disk_is_said_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "candidates.jsonl").symlink_to("/dev/full")
    with pytest.raises(Stopped, match=r"cannot write .*candidates\.jsonl: No space left on device.*same command") as caught:
        RunFolder(path=tmp_path, rows=()).append(candidate(0))
    assert caught.value.exit_code == 1


def test_atomic_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 5)  # type: ignore[arg-type]  # a failure in mid-write
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_second_opening_is_refused_while_the_first_lasts(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RunConfig()):
        before = sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").iterdir())
        with pytest.raises(RunConflict, match="in use by another search"), open_run(tmp_path / "run", RunConfig()):
            pass
        assert sorted((p.name, p.stat().st_mtime_ns) for p in (tmp_path / "run").iterdir()) == before


def test_lock_is_free_once_the_run_is_closed(tmp_path: Path) -> None:
    for _ in range(2):
        with open_run(tmp_path / "run", RunConfig()):
            pass


def test_what_a_kill_left_half_written_is_cleared(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RunConfig()):
        pass
    run = tmp_path / "run"
    (run / "teachers").mkdir()
    torn = [run / name for name in (".config.json.7.tmp", "models/.x.onnx.7.tmp", "weights/.x.safetensors.abc", "teachers/.y.tmp")]
    for path in torn:
        path.write_text("half")
    (run / "models" / ".gitignore").write_text("*")
    (run / "weights" / ".checkpoints").mkdir()
    with open_run(run, RunConfig()):
        assert not [p for p in torn if p.exists()]
        assert (run / "models" / ".gitignore").exists()  # not ours


def test_other_configuration_is_refused_with_both_values(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RunConfig(seed=1)):
        pass
    with pytest.raises(RunConflict, match="seed is 1 there, 2 here"):
        check_out(tmp_path / "run", RunConfig(seed=2))


def test_how_far_and_how_fast_may_change(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RunConfig()):
        pass
    check_out(tmp_path / "run", RunConfig(trials=7, budget_s=5.0, workers=1, executor="serial"))


def test_folder_with_other_things_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(RunConflict, match="no run folder"):
        check_out(tmp_path, RunConfig())


def test_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunConflict, match="no run folder"):
        check_out(tmp_path / "file", RunConfig())


def test_folder_killed_before_its_first_file_can_be_taken_up(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    check_out(tmp_path, RunConfig())


def test_load_run_gives_frames_and_configuration(finished: Path) -> None:
    run = load_run(finished)
    assert run.config.sampler == "tpe"
    assert len(run.candidates) == sum(r.stage == "search" for r in run.rows)
    assert (run.candidates["status"] == "trained").sum() == 8
    assert list(run.front["baseline"].isna()) == [True] * len(run.front)
    assert set(run.baselines["baseline"].str.split(" ").str[0]) == {"mobilenet_v3_small_minimal", "mnasnet_small"}
    assert {"id", "score", "latency_p50_ms", "macs"} <= set(run.candidates.columns)


def test_ids_stay_text_even_where_they_look_like_numbers(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RunConfig()):
        pass
    (tmp_path / "run" / "front.csv").write_text("id,baseline,valid_score\n000000000012,,0.5\n1234567890e1,nan x1,0.5\n")
    run = load_run(tmp_path / "run")
    assert list(run.front["id"]) == ["000000000012"]
    assert list(run.baselines["id"]) == ["1234567890e1"]


def test_unfinished_run_has_empty_frames(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RunConfig()):
        pass
    run = load_run(tmp_path / "run")
    assert (len(run.candidates), len(run.front), len(run.baselines)) == (0, 0, 0)


def test_load_run_refuses_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(NasError, match="no run folder"):
        load_run(tmp_path)


def distilled(number: int, key: str, **changed: object) -> Candidate:
    row = candidate(number, stage="distill", key=key, lesson=LessonConfig(loss="kd", options={"temperature": 2.0}), **changed)
    return msgspec.structs.replace(row, number=None)


def test_distilled_rows_of_one_student_are_told_apart_by_name(tmp_path: Path) -> None:
    found = (distilled(0, "aaaaaa"), distilled(0, "bbbbbb"))
    with open_run(tmp_path / "run", RunConfig()) as folder:
        folder.append(*found)
    assert read_rows(tmp_path / "run" / "candidates.jsonl") == found
    assert [r.name for r in found] == [f"{candidate(0).id}-aaaaaa", f"{candidate(0).id}-bbbbbb"]
    assert candidate(0).name == candidate(0).id


def test_later_row_of_a_distillation_counts(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RunConfig()) as folder:
        folder.append(distilled(0, "aaaaaa"), distilled(1, "aaaaaa"), distilled(0, "aaaaaa", test_score=0.7))
    found = read_rows(tmp_path / "run" / "candidates.jsonl")
    assert [(r.id, r.test_score) for r in found] == [(candidate(0).id, 0.7), (candidate(1).id, None)]
