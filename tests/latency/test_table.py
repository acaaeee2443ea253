"""Estimates against hand arithmetic on tables made by hand, and what a table refuses."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from latency.calibration import TERMS, Calibration, Judged
from latency.devices import open_device
from latency.errors import InvalidTable, MissingPieces
from latency.onnx_graph import emit
from latency.plan import TABLE, TimingPlan
from latency.table import LatencyTable, calibrated, open_table, pieces_ms
from latency.table_record import AGAIN, Calibrated, Row, TimedNetwork, TimedPiece, Unable, Written, append, read
from latency.table_text import command, other_kernel
from search_spaces import Architecture, Head, pieces
from tests.latency.tables import HEAD, SMALL, built, conditions, timing

ARCH = SMALL.decode(SMALL.corners()[0], HEAD)
OTHER = SMALL.decode(SMALL.corners()[1], HEAD)
GOOD = Judged(networks=9, mape=0.01, bias=0, worst=0.02, within_5=1, within_10=1, spearman=1)
DOUBLE = Calibration(
    terms=TERMS, coefficients=(0.5, 2, *[0] * 9), penalty=1, fitted=9, ratio_90=1.25, held_out=GOOD, line=GOOD, sum_alone=GOOD
)


def rows_of(arch: Architecture, ms: float = 0.25) -> list[Row]:
    """One go of every piece, all equal."""
    return [TimedPiece(piece=Written.of(p), go=0, timing=timing(ms)) for p in dict.fromkeys(pieces(arch))]


def table(path: Path, rows: list[Row], calibration: Calibration = DOUBLE, *, predict: bool = False) -> LatencyTable:
    append(path, [conditions(), *rows, Calibrated(calibration=calibration)])
    return open_table(path, predict=predict)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the fake device."""
    path = tmp_path_factory.mktemp("whole") / "t.jsonl"
    built(path)
    return path


def test_estimate_is_the_calibrated_sum_of_the_pieces(tmp_path: Path) -> None:
    found = table(tmp_path / "t.jsonl", rows_of(ARCH)).estimate(ARCH)
    assert found.ms == pytest.approx(0.5 + 2 * 0.25 * len(pieces(ARCH)))
    assert (found.low_ms, found.high_ms, found.source) == (found.ms / 1.25, found.ms * 1.25, "table")


def test_terms_beside_the_sum_count(tmp_path: Path) -> None:
    with_count = msgspec.structs.replace(DOUBLE, coefficients=(0, 1, 0, 0, 0, 0, 0, 0.01, 0, 0, 0))
    found = table(tmp_path / "t.jsonl", rows_of(ARCH), with_count).estimate(ARCH)
    assert found.ms == pytest.approx((0.25 + 0.01) * len(pieces(ARCH)))


def test_many_estimates_are_those_of_each(tmp_path: Path) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH) + [r for r in rows_of(OTHER, 0.4) if r not in rows_of(ARCH)])
    assert lookup.estimate_many([ARCH, OTHER, ARCH]) == [lookup.estimate(a) for a in (ARCH, OTHER, ARCH)]
    assert lookup.estimate_many([]) == []


def test_piece_takes_the_middle_of_its_goes_at_the_anchors_usual_speed(tmp_path: Path) -> None:
    piece = pieces(ARCH)[0]
    goes = {0: timing(1.0, anchor_ms=2.0), 1: timing(3.0, anchor_ms=4.0), 2: timing(4.5, anchor_ms=4.0), AGAIN: timing(90.0)}
    append(tmp_path / "t.jsonl", [conditions(), *(TimedPiece(piece=Written.of(piece), go=g, timing=t) for g, t in goes.items())])
    # ratios 0.5, 0.75 and 1.125, their geometric mean 0.75; the anchors usually took 3 ms, the middle of 2 and 4
    assert pieces_ms(read(tmp_path / "t.jsonl")) == {piece: pytest.approx(0.75 * 3)}


def test_estimate_lists_missing_pieces(tmp_path: Path) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH))
    missing = set(pieces(OTHER)) - set(pieces(ARCH))
    said = rf"{len(missing)} pieces have no latency .*predict=True .*python -m latency\.build_table"
    with pytest.raises(MissingPieces, match=said) as error:
        lookup.estimate(OTHER)
    assert set(error.value.pieces) == set(lookup.missing([OTHER])) == missing


def test_advice_is_not_to_build_the_same_table_again(tmp_path: Path) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH))
    with pytest.raises(MissingPieces) as error:
        lookup.estimate(OTHER)
    assert str(error.value).endswith("build a table of their own space: python -m latency.build_table --space SPACE --device fake "
                                     "--plan table --image-size 16 --outputs 4")  # fmt: skip


def test_networks_of_another_input_are_told_to_have_a_table_of_it(whole: Path) -> None:
    for other, flag in (((3, 24, 24), "--image-size 24"), ((3, 16, 24), "--input 3,16,24")):
        with pytest.raises(MissingPieces, match=rf"built for inputs of 16 px and not .*: build one with {flag}$"):
            open_table(whole, predict=True).estimate(SMALL.at(input_chw=other).decode(SMALL.corners()[0], HEAD))


def test_piece_that_the_device_could_not_run_is_said_to_be_that(tmp_path: Path) -> None:
    rows = [r for r in rows_of(ARCH) if r != rows_of(ARCH)[2]]
    lookup = table(tmp_path / "t.jsonl", [*rows, Unable(piece=Written.of(pieces(ARCH)[2]), error="no")])
    with pytest.raises(MissingPieces, match=r"1 piece has no latency .* the device cannot run 1 of them"):
        lookup.estimate(ARCH)


def test_predicted_pieces_are_marked_and_widen_the_interval(whole: Path) -> None:
    lookup = open_table(whole, predict=True)
    wider = SMALL.at(width=1.25)
    found = lookup.estimate(wider.decode(wider.corners()[1], HEAD))
    assert found.source == "table and predictor"
    assert 0 < found.predicted_share <= 1
    assert found.high_ms / found.ms > lookup.calibration.ratio_90


def test_predicting_changes_nothing_for_measured_pieces(whole: Path) -> None:
    assert open_table(whole, predict=True).estimate(ARCH) == open_table(whole).estimate(ARCH)


def test_predicting_may_be_asked_for_in_the_call(whole: Path) -> None:
    wider = SMALL.at(width=1.25)
    lookup, arch = open_table(whole), wider.decode(wider.corners()[1], HEAD)
    assert lookup.estimate(arch, predict=True) == open_table(whole, predict=True).estimate(arch)
    assert (lookup.missing([arch], predict=True), bool(lookup.missing([arch]))) == ((), True)
    with pytest.raises(MissingPieces):
        open_table(whole, predict=True).estimate(arch, predict=False)


def test_predicted_network_is_near_what_the_device_takes(whole: Path) -> None:
    # the fake device: 2 µs a node, whose number the width does not change, and hardly anything for so few multiplications
    lookup, wider, rng = open_table(whole), SMALL.at(width=1.25), np.random.default_rng(0)
    archs = [wider.decode(wider.sample(rng), HEAD) for _ in range(20)]
    exact = [m.p50_ms for m in open_device("fake").time([emit(a) for a in archs], TABLE)]
    found = lookup.estimate_many(archs, predict=True)
    assert np.mean([e.low_ms <= ms <= e.high_ms for e, ms in zip(found, exact, strict=True)]) >= 0.9
    assert np.median([abs(e.ms / ms - 1) for e, ms in zip(found, exact, strict=True)]) < 0.1


def test_interval_widens_by_the_guesses_in_proportion_to_their_time(whole: Path) -> None:
    lookup, wider = open_table(whole), SMALL.at(width=1.25)
    arch = wider.decode(wider.corners()[0], HEAD)
    found, predictor = lookup.estimate(arch, predict=True), lookup.predictor
    assert predictor is not None
    unknown = [p for p in pieces(arch) if p not in lookup.pieces_ms]
    guesses = predictor.guess(unknown)
    total_ms = sum(g.ms for g in guesses) + sum(lookup.pieces_ms[p] for p in pieces(arch) if p in lookup.pieces_ms)
    assert found.predicted_share == pytest.approx(sum(g.ms for g in guesses) / total_ms)
    more = 1 + sum(g.ms * (g.ratio_90 - 1) for g in guesses) / total_ms
    assert found.high_ms / found.ms == pytest.approx(lookup.calibration.ratio_90 * more)


@pytest.mark.parametrize("change", [{"kernel": 9}, {"act": "hswish"}, {"op": "mbconv", "hidden_ch": 24, "se_ch": 8}])
def test_piece_of_a_kind_that_the_table_has_none_of_is_not_predicted(whole: Path, change: dict[str, Any]) -> None:
    lookup = open_table(whole)
    blocks = list(ARCH.blocks)
    blocks[1] = msgspec.structs.replace(blocks[1], **change)
    odd = msgspec.structs.replace(ARCH, blocks=tuple(blocks))
    with pytest.raises(MissingPieces, match="nothing that it has is like them, to predict them by"):
        lookup.estimate(odd, predict=True)
    assert len(lookup.missing([odd], predict=True)) == 1


def test_piece_that_the_device_could_not_run_is_not_predicted(tmp_path: Path) -> None:
    lookup = built(tmp_path / "t.jsonl", "fake:fail=30")
    rng = np.random.default_rng(0)
    odd = next(a for a in (SMALL.decode(SMALL.sample(rng), HEAD) for _ in range(200)) if set(pieces(a)) & lookup.record.unable.keys())
    with pytest.raises(MissingPieces, match=r"the device cannot run \d of them: leave such layers out"):
        lookup.estimate(odd, predict=True)


def test_table_too_small_to_predict_by_says_what_it_lacks(tmp_path: Path) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH), predict=True)
    assert lookup.predictor is None
    with pytest.raises(MissingPieces):
        lookup.estimate(OTHER)


def test_calibration_is_fitted_to_its_networks_and_judged_by_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [TimedPiece(piece=Written.of(p), go=0, timing=timing(float(rng.uniform(0.1, 1)))) for p in SMALL.pieces(HEAD)]
    append(tmp_path / "t.jsonl", [conditions(), *rows])
    known = pieces_ms(read(tmp_path / "t.jsonl"))
    archs = list(dict.fromkeys(SMALL.decode(SMALL.sample(rng), HEAD) for _ in range(40)))
    networks = [
        TimedNetwork(arch=a, use="held out" if i % 4 == 0 else "fit", go=0, timing=timing(0.1 + 1.2 * sum(known[p] for p in pieces(a))))
        for i, a in enumerate(archs)
    ]
    append(tmp_path / "t.jsonl", networks)
    found = calibrated(read(tmp_path / "t.jsonl"))
    assert (found.fitted, found.held_out.networks) == (len(archs), -(-len(archs) // 4))
    assert found.held_out.mape < 1e-3
    assert found.sum_alone.bias == pytest.approx(1 / 1.2 - 1, abs=0.03)


def test_table_on_the_fake_device_is_as_good_as_its_jitter(whole: Path) -> None:
    # every graph is off by up to 2 % of its own, a network's once and its pieces' each
    held_out = open_table(whole).calibration.held_out
    assert held_out.worst < 0.045


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("runtime", "fake 2", "runtime 'fake 1' and this is 'fake 2'"),
        ("cpu", "another", "cpu 'no processor' and this is 'another'"),
        ("isa", ("avx2",), r"isa \(\) and this is \('avx2',\)"),
    ],
)
def test_other_device_is_refused_by_the_difference(tmp_path: Path, field: str, value: object, said: str) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH))
    with pytest.raises(InvalidTable, match=said):
        lookup.require(msgspec.structs.replace(conditions().device, **{field: value}), TABLE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": 2}, "threads 1 and this is 2"),
        ({"opt_level": "extended"}, "opt_level 'all' and this is 'extended'"),
        ({"provider": "xnnpack"}, "provider 'cpu' and this is 'xnnpack'"),
        ({"precision": "int8"}, "precision 'fp32' and this is 'int8'"),
        ({"cores": "little"}, "cores 'big' and this is 'little'"),
    ],
)
def test_other_plan_is_refused_by_the_difference(tmp_path: Path, change: dict[str, object], said: str) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH))
    with pytest.raises(InvalidTable, match=said):
        lookup.require(conditions().device, msgspec.structs.replace(TABLE, **change))


def test_plan_that_only_measures_longer_is_not_refused(tmp_path: Path) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH))
    lookup.require(msgspec.structs.replace(conditions().device, governor="powersave"), TimingPlan(cores="big", max_ms=9000.0))


def test_another_kernel_is_not_refused_and_said(tmp_path: Path) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH))
    old, new = (msgspec.structs.replace(conditions().device, kernel=kernel) for kernel in ("Linux 6.6", "Linux 6.12"))
    lookup.require(new, TABLE)
    assert other_kernel(old, new).startswith("it was measured under Linux 6.6 and this is Linux 6.12: the same device")
    assert other_kernel(old, old) == other_kernel(conditions().device, new) == ""


def test_unfinished_table_is_refused_with_the_command_that_goes_on(tmp_path: Path) -> None:
    append(tmp_path / "t.jsonl", [conditions(), *rows_of(ARCH)])
    with pytest.raises(InvalidTable, match=r"not finished: run python -m latency\.build_table --space small --device fake .*--fit 10"):
        open_table(tmp_path / "t.jsonl")


def test_command_quotes_what_a_shell_would_read(tmp_path: Path) -> None:
    append(tmp_path / "a b.jsonl", [conditions()])
    assert command(read(tmp_path / "a b.jsonl")).endswith("a b.jsonl'")


def test_drift_is_what_the_pieces_say_that_were_timed_again(tmp_path: Path) -> None:
    chosen = list(dict.fromkeys(pieces(ARCH)))[:3]
    again = [TimedPiece(piece=Written.of(p), go=AGAIN, timing=timing(0.25 * f)) for p, f in zip(chosen, (1.1, 0.98, 1.05), strict=True)]
    drift = table(tmp_path / "t.jsonl", [*rows_of(ARCH), *again]).drift
    assert drift is not None
    assert drift.pieces == 3
    assert (drift.change, drift.size) == pytest.approx((0.05, 0.05))
    assert drift.is_large


def test_drift_of_nothing_is_not_known(tmp_path: Path) -> None:
    assert table(tmp_path / "t.jsonl", rows_of(ARCH)).drift is None


def test_head_of_another_width_is_a_missing_piece(tmp_path: Path) -> None:
    lookup = table(tmp_path / "t.jsonl", rows_of(ARCH))
    other = msgspec.structs.replace(ARCH, head=Head(outputs=9))
    assert [p.layer for p in lookup.missing([other])] == [Head(outputs=9)]
    with pytest.raises(MissingPieces, match=r"head of 9 outputs at .* built with --outputs 4"):
        lookup.estimate(other)


def test_table_with_the_calibration_of_an_earlier_version_is_calibrated_again_by_its_own_command(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    built(path)
    now = open_table(path).calibration
    append(path, [Calibrated(calibration=msgspec.structs.replace(now, terms=now.terms[::-1]))])
    assert open_table(path).calibration == now
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-2], lines[-1]]))
    with pytest.raises(InvalidTable, match="was calibrated by an earlier version"):
        open_table(path)
    built(path)
    assert open_table(path).calibration == now
