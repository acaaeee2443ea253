import pytest

from latency.table import Estimate as TableEstimate
from nas.config import RunConfig
from nas.screening import is_clear_of, near_the_front
from nas.store import Candidate, Latency
from search_spaces import Architecture, Block, Head

ARCH = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=8),), head=Head(outputs=2))


def guess(ms: float, low_ms: float, high_ms: float) -> TableEstimate:
    return TableEstimate(ms=ms, low_ms=low_ms, high_ms=high_ms)


def row(number: int, score: float, ms: float, *, off: float = 0.0) -> Candidate:
    """A trained candidate: measured, or with ``off`` estimated to ± that share."""
    latency = Latency(p50_ms=ms, low_ms=ms * (1 - off), high_ms=ms * (1 + off))
    return Candidate(
        stage="search", status="trained", arch=ARCH, seed=0, number=number, score=score, latency=latency,
        latency_source="estimate" if off else "measured",
    )  # fmt: skip


def near(rows: list[Candidate], **fields: object) -> list[int | None]:
    return [r.number for r in near_the_front(RunConfig(**fields), rows)]  # type: ignore[arg-type]  # values of any field


@pytest.mark.parametrize(
    ("limit", "clear"), [(None, True), (0.8, True), (0.9, False), (1.0, False), (1.1, True), (1.2, True)]
)  # fmt: skip
def test_estimate_is_clear_of_a_limit_outside_its_interval(limit: float | None, clear: bool) -> None:
    assert is_clear_of(guess(1.0, 0.9, 1.1), limit) == clear


def test_estimate_that_a_measured_row_beats_at_its_best_is_left_alone() -> None:
    # at its fastest 0.9 ms: beaten by the same score at 0.9 ms, not by the same at 0.91 ms
    assert near([row(0, 0.5, 0.90), row(1, 0.5, 1.0, off=0.1)]) == []
    assert near([row(0, 0.5, 0.91), row(1, 0.5, 1.0, off=0.1)]) == [1]


def test_better_score_is_always_near_the_front() -> None:
    assert near([row(0, 0.5, 0.1), row(1, 0.51, 100.0, off=0.1)]) == [1]


def test_estimate_beats_another_only_where_their_intervals_are_apart() -> None:
    # 1.0 reaches up to 1.1, and 1.2 down to 1.08; 1.3 down to 1.17
    rows = [row(0, 0.5, 1.0, off=0.1), row(1, 0.5, 1.2, off=0.1), row(2, 0.5, 1.3, off=0.1)]
    assert near(rows) == [0, 1]


def test_two_equal_estimates_are_both_near() -> None:
    assert near([row(0, 0.5, 1.0, off=0.1), row(1, 0.5, 1.0, off=0.1)]) == [0, 1]


def test_measured_rejected_and_untrained_rows_are_never_asked_for() -> None:
    rejected = Candidate(stage="search", status="infeasible", arch=ARCH, seed=0, number=1, latency_source="estimate")
    assert near([row(0, 0.5, 1.0), rejected]) == []


def test_candidate_that_may_have_the_best_reward_is_near_though_it_is_beaten() -> None:
    # abs punishes what is faster than the target too: the first, on the front, has 0.6 - 0.5, the second perhaps 0.6
    rows = [row(0, 0.6, 1.0), row(1, 0.6, 2.0, off=0.1), row(2, 0.5, 4.0, off=0.1)]
    assert near(rows) == []
    assert near(rows, reward="abs", target_ms=2.0, w=-1.0) == [1]


def test_reward_counts_at_the_fast_end_of_the_interval() -> None:
    # hard at T = 1: 0.5 measured in time; 0.6 at 1.1 to 1.3 ms has 0.6 / 1.1 at best, 0.45 at 1.14 ms only 0.39
    rows = [row(0, 0.5, 1.0), row(1, 0.45, 1.2, off=0.05), row(2, 0.6, 1.2, off=0.1 / 1.2)]
    assert near(rows, reward="hard", target_ms=1.0) == [2]
