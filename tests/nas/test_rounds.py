import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latency import QUICK, Failed, open_device
from latency.devices.base import time_each
from latency.onnx_graph import emit
from latency.table import Estimate
from nas.config import RunConfig
from nas.errors import Stopped
from nas.finals import search_front
from nas.jobs import Done, Job, Outcome
from nas.measuring import Meter
from nas.pace import ENOUGH
from nas.proposals import Proposals
from nas.rounds import PROPOSALS_PER_TRIAL, SearchRounds
from nas.store import Candidate, open_run, read_rows
from search_spaces import Architecture, Block, Head, SearchSpace, from_toml
from tests.nas.small import TWO_NETWORKS, config, rows

Train = Callable[[Job], Outcome]


def score_of(job: Job) -> Outcome:
    """A made-up training: the score follows from the architecture."""
    return Outcome(key=job.key, score=int(job.key[:3], 16) / 4096, seconds=1.0)


def failing(job: Job) -> Outcome:
    return Outcome(key=job.key, error="Traceback ...\nMemoryError: no more of it\n", seconds=1.0)


def space_of(config: RunConfig) -> SearchSpace:
    return from_toml(config.space).at(input_chw=(3, 16, 16))


@contextmanager
def searching(config: RunConfig, out: Path, **more: Any) -> Iterator[SearchRounds]:  # Any: values of SearchRounds' own arguments
    meter = more.pop("meter", None) or Meter(open_device(config.devices[0]))
    with open_run(out, config) as folder:
        space = space_of(config)
        proposals = Proposals(config, space.choices(), out / "study.journal")
        yield SearchRounds(config=config, space=space, head=Head(outputs=3), folder=folder, proposals=proposals, meter=meter, **more)


def drive(rounds: SearchRounds, train: Train = score_of, *, at_most: int = 10_000) -> list[Job]:
    """Runs the jobs one after the other, as the serial executor does."""
    trained: list[Job] = []
    while len(trained) < at_most and isinstance(job := rounds.next(), Job):
        rounds.finish(job, train(job))
        trained.append(job)
    return trained


def searched(config: RunConfig, out: Path, train: Train = score_of, **more: Any) -> tuple[list[Job], list[Candidate]]:
    with searching(config, out, **more) as rounds:
        jobs = drive(rounds, train)
    return jobs, rows(out)


def test_search_trains_so_many_candidates_as_it_has_trials(tmp_path: Path) -> None:
    jobs, found = searched(config(tmp_path, trials=6), tmp_path / "run")
    assert len(jobs) == sum(r.status == "trained" for r in found) == 6


def test_every_row_holds_what_was_measured_counted_and_scored(tmp_path: Path) -> None:
    _, found = searched(config(tmp_path, trials=4), tmp_path / "run")
    for row in found:
        assert row.latency is not None
        assert row.latency.low_ms <= row.latency.p50_ms <= row.latency.high_ms
        assert row.cost is not None
        assert row.score is not None
        assert row.arch == space_of(config(tmp_path)).decode(row.picks, Head(outputs=3))


def test_no_architecture_is_trained_twice(tmp_path: Path) -> None:
    jobs, found = searched(config(tmp_path, trials=30), tmp_path / "run")
    assert len({job.key for job in jobs}) == len(jobs)
    assert any(r.status == "duplicate" for r in found)


def test_repeated_proposal_is_answered_from_the_first_row(tmp_path: Path) -> None:
    _, found = searched(config(tmp_path, trials=30), tmp_path / "run")
    by_number = {r.number: r for r in found}
    for row in (r for r in found if r.status == "duplicate"):
        first = by_number[row.duplicate_of]
        assert (row.id, row.score, row.latency, row.score_source) == (first.id, first.score, first.latency, "store")


def test_small_space_ends_the_search_with_a_sentence(tmp_path: Path) -> None:
    given = config(tmp_path, TWO_NETWORKS, trials=5)
    with searching(given, tmp_path / "run") as rounds:
        jobs = drive(rounds)
        assert len(jobs) == 2
        assert "proposals gave 2 candidates to train" in rounds.stopped
    assert len(rows(tmp_path / "run")) >= 5 * PROPOSALS_PER_TRIAL


def test_slow_candidates_become_infeasible_rows_and_are_never_trained(tmp_path: Path) -> None:
    jobs, found = searched(config(tmp_path, trials=6, max_ms=0.04), tmp_path / "run")
    slow = {r.id for r in found if r.status == "infeasible"}
    assert slow
    assert not slow & {job.key for job in jobs}
    assert all((r.latency is not None and r.latency.p50_ms > 0.04) == (r.status == "infeasible") for r in found if r.duplicate_of is None)
    assert [r.score for r in found if r.status == "infeasible"] == [None] * sum(r.status == "infeasible" for r in found)


def test_failed_training_becomes_a_row_with_its_traceback_and_the_search_goes_on(tmp_path: Path) -> None:
    seen: list[str] = []

    def second_fails(job: Job) -> Outcome:
        seen.append(job.key)
        return failing(job) if len(seen) == 2 else score_of(job)

    _, found = searched(config(tmp_path, trials=6), tmp_path / "run", second_fails)
    assert [r.status for r in found if r.duplicate_of is None] == ["trained", "failed", "trained", "trained", "trained", "trained"]
    assert "MemoryError" in found[1].error


def test_three_failures_in_a_row_stop_the_search_with_the_reason(tmp_path: Path) -> None:
    with searching(config(tmp_path), tmp_path / "run") as rounds, pytest.raises(Stopped, match="MemoryError: no more of it") as caught:
        drive(rounds, failing)
    assert caught.value.exit_code == 1
    assert [r.status for r in rows(tmp_path / "run")] == ["failed"] * 3


def test_two_failures_and_a_success_do_not_stop_it(tmp_path: Path) -> None:
    seen: list[str] = []

    def every_third_works(job: Job) -> Outcome:
        seen.append(job.key)
        return score_of(job) if len(seen) % 3 == 0 else failing(job)

    jobs, _ = searched(config(tmp_path, trials=9), tmp_path / "run", every_third_works)
    assert len(jobs) == 9


def test_rejected_candidates_between_failures_do_not_hide_them(tmp_path: Path) -> None:
    # rounds of one: a network that is too slow stands between most that are not
    given = config(tmp_path, round_size=1, max_ms=0.04, trials=20)
    with searching(given, tmp_path / "run") as rounds, pytest.raises(Stopped):
        drive(rounds, failing)
    found = rows(tmp_path / "run")
    assert any(r.status == "infeasible" for r in found)
    assert sum(r.status == "failed" and r.duplicate_of is None for r in found) == 3


def test_full_disk_stops_the_run_and_costs_no_row(tmp_path: Path) -> None:
    full = "x.safetensors: No space left on device"
    with searching(config(tmp_path), tmp_path / "run") as rounds, pytest.raises(Stopped, match="No space left"):
        drive(rounds, lambda job: Outcome(key=job.key, stop=full))
    assert rows(tmp_path / "run") == []
    jobs, _ = searched(config(tmp_path), tmp_path / "run")
    assert len(jobs) == 8


def test_network_that_the_device_cannot_run_is_a_failed_row(tmp_path: Path) -> None:
    # fail=5: two of the second round's four, and not in a row
    jobs, found = searched(config(tmp_path, devices=("fake:fail=5",), trials=12), tmp_path / "run")
    broken = [r for r in found if r.status == "failed" and r.duplicate_of is None]
    assert len(broken) >= 2
    assert len(jobs) == 12
    assert all("cannot run" in r.error and r.latency is None for r in broken)


@pytest.mark.parametrize("done", [1, 3, 4, 5, 9])
def test_search_broken_off_between_jobs_goes_on_as_an_unbroken_one(tmp_path: Path, done: int) -> None:
    given = config(tmp_path, sampler="tpe", trials=12, max_ms=0.06)
    _, whole = searched(given, tmp_path / "whole")
    with searching(given, tmp_path / "run") as rounds:
        first = drive(rounds, at_most=done)
    second, parts = searched(given, tmp_path / "run")
    assert sorted(parts, key=lambda r: r.number or 0) == sorted(whole, key=lambda r: r.number or 0)
    assert not {job.key for job in first} & {job.key for job in second}


@pytest.mark.parametrize("done", [2, 6, 10])
def test_overlapping_rounds_go_on_alike_too(tmp_path: Path, done: int) -> None:
    given = config(tmp_path, sampler="tpe", trials=12, overlap="on")
    _, whole = searched(given, tmp_path / "whole", overlap=True)
    with searching(given, tmp_path / "run", overlap=True) as rounds:
        drive(rounds, at_most=done)
    _, parts = searched(given, tmp_path / "run", overlap=True)
    assert [(r.number, r.picks, r.score) for r in sorted(parts, key=lambda r: r.number or 0)] == [
        (r.number, r.picks, r.score) for r in sorted(whole, key=lambda r: r.number or 0)
    ]


def test_jobs_that_finish_out_of_order_change_no_proposal(tmp_path: Path) -> None:
    given = config(tmp_path, sampler="tpe", trials=12)
    _, whole = searched(given, tmp_path / "whole")
    with searching(given, tmp_path / "run") as rounds:
        while not isinstance(job := rounds.next(), Done):
            batch = [job]
            while isinstance(more := rounds.next(), Job):
                batch.append(more)
            for each in reversed([b for b in batch if b]):
                rounds.finish(each, score_of(each))
    assert {r.number: r.picks for r in rows(tmp_path / "run")} == {r.number: r.picks for r in whole}


def test_nothing_is_measured_while_a_job_is_out_unless_rounds_overlap(tmp_path: Path) -> None:
    with searching(config(tmp_path, trials=12), tmp_path / "run") as rounds:
        first = [rounds.next() for _ in range(4)]
        assert all(isinstance(job, Job) for job in first)
        assert rounds.next() is None
    with searching(config(tmp_path, trials=12, overlap="on"), tmp_path / "two", overlap=True) as rounds:
        eight = [rounds.next() for _ in range(8)]
        assert all(isinstance(job, Job) for job in eight)
        assert rounds.next() is None


def test_more_trials_go_on_from_what_is_there(tmp_path: Path) -> None:
    first, _ = searched(config(tmp_path, trials=6), tmp_path / "run")
    second, found = searched(config(tmp_path, trials=10), tmp_path / "run")
    assert (len(first), len(second)) == (6, 4)
    assert len({r.number for r in found}) == len(found)


def test_deadline_ends_the_search_with_a_sentence(tmp_path: Path) -> None:
    with searching(config(tmp_path), tmp_path / "run", deadline=0.0) as rounds:
        assert isinstance(rounds.next(), Done)
        assert "budget" in rounds.stopped


def test_time_reserved_for_the_finals_ends_the_search_early(tmp_path: Path) -> None:
    with searching(config(tmp_path), tmp_path / "run", deadline=time.monotonic() + 100, reserve_s=lambda r: 99.0 + r.trained) as rounds:
        assert len(drive(rounds)) == 1


def test_measuring_leaves_out_what_cannot_run() -> None:
    device = open_device("fake:fail=2")
    archs = [Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=n),), head=Head(outputs=2)) for n in range(4, 20)]
    together = time_each(device, [emit(a) for a in archs], QUICK)
    alone = [time_each(device, [emit(a)], QUICK)[0] for a in archs]
    assert [isinstance(m, Failed) for m in together] == [isinstance(m, Failed) for m in alone]
    assert 0 < sum(isinstance(m, Failed) for m in together) < len(archs)


def test_device_that_can_run_nothing_stops_the_search_with_the_reason(tmp_path: Path) -> None:
    given = config(tmp_path, devices=("fake:fail=1",))
    with searching(given, tmp_path / "run") as rounds, pytest.raises(Stopped, match=r"3 candidates in a row failed.*cannot run model"):
        rounds.next()


class Table:
    """Estimates that are ``off`` the fake device's latency by a share, and say that they may be by twice that."""

    def __init__(self, off: float) -> None:
        self._device, self._off = open_device("fake"), off

    def estimate_many(self, archs: Sequence[Architecture]) -> list[Estimate]:
        exact = [m.p50_ms for m in self._device.time([emit(a) for a in archs], QUICK)]
        return [Estimate(ms=v * (1 + self._off), low_ms=v * (1 - self._off), high_ms=v * (1 + 3 * self._off)) for v in exact]

    def missing(self, archs: Sequence[Architecture]) -> tuple[Architecture, ...]:
        return ()


def screened(given: RunConfig, out: Path, *, at_most: int = 10_000, off: float = 0.05, **more: Any) -> Meter:  # Any: SearchRounds' own
    meter = Meter(open_device("fake"), table=Table(off))
    with searching(given, out, meter=meter, **more) as rounds:
        drive(rounds, at_most=at_most)
    return meter


def searched_front(found: list[Candidate]) -> set[tuple[str, float]]:
    return {(r.id, r.latency.p50_ms) for r in search_front(found) if r.latency}


def test_table_spares_measuring_and_the_front_is_the_one_that_measuring_everything_finds(tmp_path: Path) -> None:
    given = config(tmp_path, trials=24, sampler="random")
    _, everything = searched(given, tmp_path / "measured")
    meter = screened(given, tmp_path / "screened")
    found = list(read_rows(tmp_path / "screened" / "candidates.jsonl"))
    assert searched_front(found) == searched_front(everything)
    assert {r.latency_source for r in search_front(found)} == {"measured"}
    assert 0 < meter.measured < 24
    # of the last round some were priced and had no trial left
    assert meter.estimated >= sum(r.latency_source == "estimate" for r in found) > 0
    assert " only estimated by the table: about " in meter.story()


def test_candidate_measured_after_all_has_one_row_when_read(tmp_path: Path) -> None:
    given = config(tmp_path, trials=24)
    screened(given, tmp_path / "run")
    lines = (tmp_path / "run" / "candidates.jsonl").read_bytes().splitlines()
    found = rows(tmp_path / "run")
    assert len(lines) > len(found) == len({r.number for r in found})


def test_estimate_clear_over_the_limit_is_neither_measured_nor_trained(tmp_path: Path) -> None:
    given = config(tmp_path, trials=6, max_ms=0.04)
    screened(given, tmp_path / "run")
    slow = [r for r in rows(tmp_path / "run") if r.status == "infeasible" and r.duplicate_of is None]
    by_table = [r for r in slow if r.latency_source == "estimate"]
    assert by_table
    assert all(r.latency is not None and r.latency.low_ms > 0.04 for r in by_table)
    trained = [r for r in rows(tmp_path / "run") if r.status == "trained"]
    assert all(r.latency is not None and r.latency.p50_ms <= 0.04 for r in trained)


@pytest.mark.parametrize(("overlap", "done"), [(False, 1), (False, 4), (False, 9), (True, 6)])
def test_screened_search_broken_off_goes_on_as_an_unbroken_one(tmp_path: Path, overlap: bool, done: int) -> None:
    given = config(tmp_path, sampler="tpe", trials=12, max_ms=0.06)
    screened(given, tmp_path / "whole", overlap=overlap)
    screened(given, tmp_path / "run", overlap=overlap, at_most=done)
    screened(given, tmp_path / "run", overlap=overlap)
    assert sorted(rows(tmp_path / "run"), key=lambda r: r.number or 0) == sorted(rows(tmp_path / "whole"), key=lambda r: r.number or 0)


def test_candidates_that_measuring_showed_to_be_too_slow_are_not_trained_anew(tmp_path: Path) -> None:
    class Hopeful(Table):
        """A table by which everything takes half of what it does, but for the networks that tell the pace, and that is sure of it."""

        def estimate_many(self, archs: Sequence[Architecture]) -> list[Estimate]:
            found = super().estimate_many(archs)
            places = [seen.setdefault(arch, len(seen)) for arch in archs]
            right = [e.ms / (1 if place < ENOUGH else 2) for e, place in zip(found, places, strict=True)]
            return [Estimate(ms=ms, low_ms=ms, high_ms=ms) for ms in right]

    seen: dict[Architecture, int] = {}
    given = config(tmp_path, trials=16, max_ms=0.04)
    for expected in (16, 0):
        with searching(given, tmp_path / "run", meter=Meter(open_device("fake"), table=Hopeful(0.0))) as rounds:
            assert len(drive(rounds)) == expected
    assert any(r.status == "infeasible" and r.score is not None for r in rows(tmp_path / "run"))
