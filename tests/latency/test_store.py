import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest

from latency import QUICK, TimingPlan
from latency.store import KEPT_DAYS, LatencyStore, _connected, _set_aside, open_store, plan_sha256, store_path
from tests.latency.taken import DEVICE, taken

ROOT = Path(__file__).resolve().parents[2]
A, B = "a" * 64, "b" * 64
WRITER = """
import sys
from datetime import datetime
from pathlib import Path
from latency.store import LatencyStore
from tests.latency.taken import NOW, taken
path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = LatencyStore(path, warn=lambda text: print(text, file=sys.stderr), now=lambda: datetime.fromisoformat(NOW))
for i in range(count):
    store.keep([taken(f"{name}-{i}")])
    print(i, flush=True)
"""


def now() -> datetime:
    return datetime(2026, 11, 23, 6, tzinfo=UTC)


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, warned: list[str]) -> Iterator[LatencyStore]:
    opened = LatencyStore(tmp_path / "s" / "latencies.sqlite", warn=warned.append, now=now)
    yield opened
    opened.close()


def again(tmp_path: Path, warned: list[str]) -> LatencyStore:
    return LatencyStore(tmp_path / "s" / "latencies.sqlite", warn=warned.append, now=now)


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_measurement_comes_back_whole_in_a_later_run(store: LatencyStore, tmp_path: Path, warned: list[str]) -> None:
    store.keep([taken(A), taken(B, 2.0)])
    store.close()
    later = again(tmp_path, warned)
    assert later.find([A, B, "c" * 64], DEVICE, QUICK) == {A: taken(A), B: taken(B, 2.0)}
    later.close()
    assert warned == []


@pytest.mark.parametrize(
    ("then", "now_is", "is_found"), [("Linux 6.6", "Linux 6.6", True), ("Linux 6.6", "Linux 6.12", False), ("", "Linux 6.6", True)]
)  # fmt: skip
def test_measurement_under_another_kernel_is_left(store: LatencyStore, then: str, now_is: str, is_found: bool) -> None:
    store.keep([taken(A, device=msgspec.structs.replace(DEVICE, kernel=then))])
    assert bool(store.find([A], msgspec.structs.replace(DEVICE, kernel=now_is), QUICK)) == is_found


def test_newest_measurement_counts(store: LatencyStore) -> None:
    store.keep([taken(A, 1.0)])
    store.keep([taken(A, 3.0)])
    assert store.find([A], DEVICE, QUICK)[A].p50_ms == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize("changed", [{"cpu": "Other"}, {"runtime": "onnxruntime 9"}, {"os": "Linux 7"}, {"max_mhz": 1}])
def test_other_device_or_runtime_finds_nothing(store: LatencyStore, changed: dict[str, object]) -> None:
    store.keep([taken(A)])
    assert store.find([A], msgspec.structs.replace(DEVICE, **changed), QUICK) == {}


@pytest.mark.parametrize("changed", [{"threads": 2}, {"opt_level": "basic"}, {"max_ms": 601.0}, {"cpus": (1,)}])
def test_any_difference_of_the_plan_finds_nothing(store: LatencyStore, changed: dict[str, object]) -> None:
    store.keep([taken(A)])
    assert store.find([A], DEVICE, msgspec.structs.replace(QUICK, **changed)) == {}


def test_hash_of_a_plan_is_of_all_its_fields() -> None:
    assert plan_sha256(QUICK) == plan_sha256(TimingPlan(cores="big"))
    assert plan_sha256(QUICK) != plan_sha256(TimingPlan(cores="big", block_ms=21.0))


def test_measurement_with_problems_is_not_found_and_an_older_one_without_is(store: LatencyStore) -> None:
    doubtful = taken(A, noise=0.5)
    assert doubtful.problems()
    store.keep([doubtful])
    assert store.find([A], DEVICE, QUICK) == {}
    store.keep([taken(A, 2.0), doubtful])
    assert store.find([A], DEVICE, QUICK) == {A: taken(A, 2.0)}


def test_old_measurement_is_forgotten(store: LatencyStore, tmp_path: Path, warned: list[str]) -> None:
    at = [(now() - timedelta(days=days)).isoformat().replace("+00:00", "Z") for days in (KEPT_DAYS + 1, KEPT_DAYS - 1)]
    store.keep([taken(A, at=at[0]), taken(B, at=at[1])])
    assert set(store.find([A, B], DEVICE, QUICK)) == {B}
    store.close()
    again(tmp_path, warned).close()
    with sqlite3.connect(tmp_path / "s" / "latencies.sqlite") as db:
        assert [row[0] for row in db.execute("SELECT model FROM takes")] == [B]
    db.close()


def test_row_that_cannot_be_read_any_more_is_measured_again(store: LatencyStore, tmp_path: Path) -> None:
    store.keep([taken(A)])
    with sqlite3.connect(tmp_path / "s" / "latencies.sqlite") as db:
        db.execute("UPDATE takes SET data = x'00'")
    db.close()
    assert store.find([A], DEVICE, QUICK) == {}


def test_file_holds_at_most_eight_takes_of_one_key(store: LatencyStore, tmp_path: Path) -> None:
    for i in range(11):
        store.keep([taken(A, 1.0 + i), taken(B)])
    with sqlite3.connect(tmp_path / "s" / "latencies.sqlite") as db:
        assert sorted(db.execute("SELECT count(*) FROM takes GROUP BY model").fetchall()) == [(8,), (8,)]
    db.close()
    assert store.find([A], DEVICE, QUICK)[A].p50_ms == pytest.approx(11.0, rel=0.01)


def test_spread_is_that_of_the_processes_that_were_drawn(store: LatencyStore) -> None:
    # 300 models with three processes each, 3 % apart: the median of so many small samples is known to about 0.1 %
    rng = np.random.default_rng(1)
    for _ in range(3):
        store.keep([taken(f"{i:064}", float(1 + 0.03 * rng.standard_normal())) for i in range(300)], "quick")
    assert store.spread(DEVICE.id, "quick") == pytest.approx(0.03, rel=0.12)


def test_spread_of_too_few_models_or_another_plan_is_not_known(store: LatencyStore) -> None:
    for ms in (1.0, 1.1):
        store.keep([taken(A, ms), taken(B, ms)], "quick")
    store.keep([taken("c" * 64)], "quick")
    assert store.spread(DEVICE.id, "quick") is None
    assert store.spread(DEVICE.id, "table") is None
    assert store.spread("0" * 12, "quick") is None


def test_several_processes_write_at_once_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "latencies.sqlite"
    processes = [writer(path, f"p{i}", 20) for i in range(4)]
    said = [p.communicate(timeout=120) for p in processes]
    assert [(p.returncode, err) for p, (_, err) in zip(processes, said, strict=True)] == [(0, "")] * 4
    store = LatencyStore(path, warn=pytest.fail, now=now)
    assert len(store.find([f"p{i}-{n}" for i in range(4) for n in range(20)], DEVICE, QUICK)) == 80
    store.close()


@pytest.mark.parametrize("after", [1, 7, 30])
def test_killed_writer_leaves_whole_rows_and_all_it_had_finished(tmp_path: Path, after: int) -> None:
    path = tmp_path / "latencies.sqlite"
    process = writer(path, "p", 100_000)
    assert process.stdout is not None
    for _ in range(after):
        assert process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    finished = after + len(process.communicate()[0].splitlines())
    store = LatencyStore(path, warn=pytest.fail, now=now)
    found = store.find([f"p-{n}" for n in range(finished)], DEVICE, QUICK)
    store.close()
    assert len(found) == finished
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_file_that_is_no_database_is_set_aside_and_a_new_one_begun(tmp_path: Path, warned: list[str]) -> None:
    path = tmp_path / "s" / "latencies.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 1000)
    store = again(tmp_path, warned)
    store.keep([taken(A)])
    assert set(store.find([A], DEVICE, QUICK)) == {A}
    store.close()
    assert (tmp_path / "s" / "latencies.sqlite.broken-1").read_bytes() == b"garbage" * 1000
    assert len(warned) == 1
    assert "it is now latencies.sqlite.broken-1, and a new one is begun" in warned[0]


def test_file_broken_in_the_middle_is_set_aside_when_that_shows(store: LatencyStore, tmp_path: Path, warned: list[str]) -> None:
    store.keep([taken(f"{i:064}") for i in range(50)])
    store.close()
    path = tmp_path / "s" / "latencies.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    later = again(tmp_path, warned)
    later.keep([taken(A)])
    assert set(later.find([A, f"{3:064}"], DEVICE, QUICK)) == {A}
    later.close()
    assert len(warned) == 1


def test_newer_programs_file_is_left_alone(store: LatencyStore, tmp_path: Path, warned: list[str]) -> None:
    store.close()
    path = tmp_path / "s" / "latencies.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    later = again(tmp_path, warned)
    later.keep([taken(A)])
    assert later.find([A], DEVICE, QUICK) == {}
    later.close()
    assert len(warned) == 1
    assert "a newer version of this program made it" in warned[0]


def test_folder_that_cannot_be_made_costs_one_warning(tmp_path: Path, warned: list[str]) -> None:
    (tmp_path / "s").write_text("a file in its place")
    store = again(tmp_path, warned)
    store.keep([taken(A)])
    assert store.find([A], DEVICE, QUICK) == {}
    store.close()
    assert len(warned) == 1
    assert "nothing measured is kept for later" in warned[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_costs_one_warning_and_what_is_there_is_still_read(tmp_path: Path, warned: list[str]) -> None:
    place = tmp_path / "s"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        store = again(tmp_path, warned)
        store.keep([taken(A)])
        for i in range(400):
            store.keep([taken(f"{i:064}")])
        assert set(store.find([A], DEVICE, QUICK)) == {A}
        store.close()
        assert len(warned) == 1
        assert "cannot write the latency store" in warned[0]
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a read-only file system needs root")
def test_read_only_store_is_read_with_one_warning(store: LatencyStore, tmp_path: Path, warned: list[str]) -> None:
    store.keep([taken(A)])
    store.close()
    place = tmp_path / "s"
    if subprocess.run(["mount", "--bind", "-o", "ro", str(place), str(place)], capture_output=True, check=False).returncode:
        pytest.skip("this container may not mount")
    try:
        later = again(tmp_path, warned)
        later.keep([taken(B)])
        assert set(later.find([A, B], DEVICE, QUICK)) == {A}
        later.close()
        assert len(warned) == 1
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_users_own_store_lies_in_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    assert store_path() == tmp_path / "cache" / "latencies.sqlite"
    open_store(warn=pytest.fail).close()
    assert store_path().exists()


def test_closed_store_is_empty_and_may_be_closed_again(store: LatencyStore) -> None:
    store.keep([taken(A)])
    store.close()
    store.close()
    assert store.find([A], DEVICE, QUICK) == {}


def test_store_that_another_holds_is_not_taken_for_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "latencies.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE t (a)")
        db.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr("latency.store.BUSY_S", 0.01)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            _set_aside(path)
    assert path.exists()
    path.write_bytes(b"garbage" * 1000)
    aside = _set_aside(path)
    assert aside is not None
    assert aside.name == "latencies.sqlite.broken-1"


def test_every_commit_waits_for_the_disk(tmp_path: Path) -> None:
    with closing(_connected(tmp_path / "latencies.sqlite")) as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: in WAL mode, NORMAL (1) waits at checkpoints only
