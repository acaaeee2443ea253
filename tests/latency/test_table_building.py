"""Building on the fake device, whose latencies are known: what is timed, how often, and what an interruption leaves."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from latency.devices import open_device
from latency.devices.base import time_each
from latency.errors import Failed, InvalidTable, Unreachable
from latency.onnx_graph import emit_piece
from latency.piece_work import piece_work
from latency.plan import TABLE
from latency.table_building import Work, build, go_plan, network_plan, open_record, spread, work_left
from latency.table_record import AGAIN, Anchor, Record, Row, Session, TimedNetwork, TimedPiece, append, pieces_sha256, read
from search_spaces import pieces
from tests.latency.tables import HEAD, SMALL, built, conditions, no_tick

MENU = SMALL.pieces(HEAD)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """A table of the fake device."""
    return built(tmp_path_factory.mktemp("whole") / "t.jsonl").record


def test_every_piece_is_timed_once_in_each_of_the_plan_s_processes(whole: Record) -> None:
    times = Counter((row.piece.read(), row.go) for row in whole.of(TimedPiece) if row.go != AGAIN)
    assert times == {(piece, go): 1 for piece in MENU for go in range(TABLE.processes)}


def test_goes_have_orders_of_their_own(whole: Record) -> None:
    orders = [[row.piece for row in whole.of(TimedPiece) if row.go == go] for go in range(3)]
    assert orders[0] != orders[1] != orders[2]


def test_one_in_twenty_pieces_is_timed_once_more(whole: Record) -> None:
    assert sum(AGAIN in goes for goes in whole.pieces.values()) == -(-len(MENU) // 20)


def test_latencies_are_those_of_the_device(whole: Record) -> None:
    # 2 µs a node + 0.05 ns a multiply-accumulate, off by up to 2 % by graph, and noise of 0.1 % a run
    for piece, goes in whole.pieces.items():
        by_hand_ms = (2000 * len(emit_piece(piece).graph.node) + 0.05 * piece_work(piece).macs) / 1e6
        assert goes[0].ms == pytest.approx(by_hand_ms, rel=0.021)


def test_networks_are_as_many_as_asked_for_and_of_the_table_s_pieces(whole: Record) -> None:
    assert Counter(use for use, _ in whole.networks.values()) == {"fit": 10, "held out": 5}
    assert {p for arch in whole.networks for p in pieces(arch)} <= set(MENU)
    assert all(goes.keys() == {0, 1, 2} for _, goes in whole.networks.values())


def test_no_network_is_both_fitted_to_and_held_out(whole: Record) -> None:
    uses = {(row.arch, row.use) for row in whole.of(TimedNetwork)}
    assert len(uses) == len({arch for arch, _ in uses})


def test_same_seed_gives_the_same_file(whole: Record, tmp_path: Path) -> None:
    built(tmp_path / "t.jsonl")
    assert (tmp_path / "t.jsonl").read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize("timed", [1, 40, 120])
def test_lost_device_leaves_what_was_measured_and_the_rest_follows(whole: Record, tmp_path: Path, timed: int) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(Unreachable):
        built(path, f"fake:lost={timed}")
    kept = path.read_bytes()
    record = built(path).record
    assert path.read_bytes().startswith(kept)
    assert without_sessions(record) == without_sessions(whole)


def without_sessions(record: Record) -> list[Row]:
    """What was timed."""
    return [row for row in record.rows if not isinstance(row, Session)]


def test_every_session_begins_with_the_anchors(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with pytest.raises(Unreachable):
        built(path, "fake:lost=40")
    record = built(path).record
    first, second = record.of(Session)
    assert first == second == record.rows[0]
    assert len(first.anchors) == 3
    assert all(anchor.ms > 0 for anchor in first.anchors)


def test_table_begun_beside_other_anchors_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    other = Session(anchors=(Anchor(sha256="0" * 64, ms=1.0),), taken_at="1970-01-01T00:00:00Z")
    append(path, [conditions(), other])
    with pytest.raises(InvalidTable, match=r"t\.jsonl was begun beside other networks .*name another --out"):
        built(path)
    assert read(path).rows == (other,)


def test_space_that_changed_behind_its_name_is_refused(tmp_path: Path) -> None:
    then, now = (msgspec.structs.replace(conditions(), pieces_sha256=letter * 64) for letter in "ab")
    open_record(tmp_path / "t.jsonl", then)
    with pytest.raises(InvalidTable, match=r"other conditions \(the space small was another one\): name another --out"):
        open_record(tmp_path / "t.jsonl", now)


def test_table_from_before_the_space_was_noted_is_gone_on_with(tmp_path: Path) -> None:
    open_record(tmp_path / "t.jsonl", conditions())
    now = msgspec.structs.replace(conditions(), pieces_sha256="a" * 64)
    assert open_record(tmp_path / "t.jsonl", now).conditions == conditions()


def test_same_space_by_another_path_is_gone_on_with(tmp_path: Path) -> None:
    then, now = (msgspec.structs.replace(conditions(), space=path, pieces_sha256="a" * 64) for path in ("small.toml", "here/small.toml"))
    open_record(tmp_path / "t.jsonl", then)
    assert open_record(tmp_path / "t.jsonl", now).conditions == then


def test_hash_of_pieces_is_of_each_of_them_and_of_their_order() -> None:
    larger = SMALL.at(input_chw=(3, 32, 32)).pieces(HEAD)
    assert len({pieces_sha256(menu) for menu in (MENU, MENU[:-1], MENU[::-1], larger)}) == 4
    assert pieces_sha256(MENU) == pieces_sha256(SMALL.pieces(HEAD))


def test_table_of_signals_is_built(tmp_path: Path) -> None:
    space = SMALL.at(input_chw=(2, 1, 64))
    table = built(tmp_path / "t.jsonl", space=space)
    assert set(table.pieces_ms) == set(space.pieces(HEAD))
    assert all(piece.dims == 1 for piece in table.pieces_ms)
    assert table.estimate(space.decode(space.corners()[0], HEAD)).ms > 0


def test_finished_table_is_not_measured_again(whole: Record) -> None:
    assert work_left(whole, SMALL).timings == 0


def test_work_of_a_new_table_is_counted_by_hand(tmp_path: Path) -> None:
    work = work_left(open_record(tmp_path / "t.jsonl", conditions()), SMALL)
    assert (work.pieces, work.again, work.networks) == (3 * len(MENU), -(-len(MENU) // 20), 3 * 15)


def test_ticks_count_every_timing(tmp_path: Path) -> None:
    counted = []
    built(tmp_path / "t.jsonl", tick=lambda text="", *, advance=1, earlier=False: counted.append(advance))
    assert sum(counted) == work_left(open_record(tmp_path / "new.jsonl", conditions()), SMALL).timings


def test_piece_that_the_device_cannot_run_is_recorded_and_its_networks_are_left_out(tmp_path: Path) -> None:
    record = built(tmp_path / "t.jsonl", "fake:fail=30").record
    assert record.unable
    assert record.unable.keys() | record.pieces.keys() == set(MENU)
    assert not record.unable.keys() & {p for arch in record.networks for p in pieces(arch)}
    assert all("cannot run model" in error for error in record.unable.values())


def test_device_that_runs_nothing_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"can run none of 8 networks of small; the last: .*fail=1"):
        built(tmp_path / "t.jsonl", "fake:fail=1")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 7}, "seed is 0 there, 7 here"),
        ({"width": 0.5}, "width is 1.0 there, 0.5 here"),
        ({"plan": msgspec.structs.replace(TABLE, threads=2)}, "plan threads is 1 there, 2 here"),
    ],
)
def test_table_of_other_conditions_is_refused_by_the_difference(tmp_path: Path, change: dict[str, object], said: str) -> None:
    open_record(tmp_path / "t.jsonl", conditions())
    with pytest.raises(InvalidTable, match=f"other conditions .*{said}.*: name another --out"):
        open_record(tmp_path / "t.jsonl", msgspec.structs.replace(conditions(), **change))


def test_same_device_by_another_address_goes_on(tmp_path: Path) -> None:
    open_record(tmp_path / "t.jsonl", conditions())
    assert open_record(tmp_path / "t.jsonl", msgspec.structs.replace(conditions(), device_spec="fake:noise=0")).conditions == conditions()


def test_device_with_another_kernel_goes_on(tmp_path: Path) -> None:
    open_record(tmp_path / "t.jsonl", conditions())
    newer = msgspec.structs.replace(conditions().device, kernel="Linux 6.12")
    assert open_record(tmp_path / "t.jsonl", msgspec.structs.replace(conditions(), device=newer)).conditions == conditions()


def test_device_with_another_runtime_is_refused(tmp_path: Path) -> None:
    open_record(tmp_path / "t.jsonl", conditions())
    other = msgspec.structs.replace(conditions().device, runtime="fake 2")
    with pytest.raises(InvalidTable, match=r"device runtime is fake 1 there, fake 2 here"):
        open_record(tmp_path / "t.jsonl", msgspec.structs.replace(conditions(), device=other))


def test_a_go_is_one_process_beside_the_table_s_own_anchor() -> None:
    plan = go_plan(TABLE)
    assert (plan.processes, plan.more_processes, plan.anchor, plan.max_ms) == (1, 0, False, TABLE.max_ms)


def test_whole_networks_are_timed_for_longer() -> None:
    piece, network = go_plan(TABLE), network_plan(TABLE)
    assert (network.processes, network.max_ms > 3 * piece.max_ms, network.min_ms > 3 * piece.min_ms) == (1, True, True)
    assert network.warmup_ms == piece.warmup_ms


def test_models_that_cannot_run_are_told_from_the_others() -> None:
    models = [emit_piece(piece) for piece in MENU]
    outcomes = time_each(open_device("fake:fail=3"), models, go_plan(TABLE))
    alone = [_runs(model) for model in models]
    assert [not isinstance(outcome, Failed) for outcome in outcomes] == alone
    assert len(set(alone)) == 2


def _runs(model: object) -> bool:
    try:
        open_device("fake:fail=3").time([model], go_plan(TABLE))  # type: ignore[list-item]  # a model as emit_piece gives it
    except Failed:
        return False
    return True


def test_networks_are_spread_evenly() -> None:
    assert spread([0.0, 0.1, 0.2, 0.3, 5.0, 9.0, 10.0], 3) == [0, 4, 6]
    assert spread([1.0, 2.0], 3) == [0, 1]
    assert spread([], 3) == []


def test_file_torn_in_its_first_line_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(msgspec.json.encode(conditions())[:40])
    assert open_record(tmp_path / "t.jsonl", conditions()).conditions == conditions()


def test_file_of_something_else_without_a_line_break_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"my notes")
    with pytest.raises(InvalidTable, match="no latency table"):
        open_record(tmp_path / "t.jsonl", conditions())
    assert (tmp_path / "t.jsonl").read_bytes() == b"my notes"


def test_building_in_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("hello\n")
    with pytest.raises(InvalidTable, match="no row of a latency table"):
        open_record(tmp_path / "t.jsonl", conditions())


def test_device_that_is_closed_leaves_a_table_to_go_on_with(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    device = open_device("fake")
    device.close()
    with pytest.raises(Exception, match="closed"):
        build(open_record(path, conditions()), SMALL, device, no_tick)
    assert read(path).rows == ()


@pytest.mark.parametrize("fail", [12, 30])
def test_finished_table_with_pieces_that_cannot_run_is_not_measured_again(tmp_path: Path, fail: int) -> None:
    record = built(tmp_path / "t.jsonl", f"fake:fail={fail}").record
    assert record.unable
    assert work_left(record, SMALL) == Work(pieces=0, again=0, networks=0)
    build(record, SMALL, open_device("fake:lost=1"), no_tick)  # which would be lost if it timed the anchors
