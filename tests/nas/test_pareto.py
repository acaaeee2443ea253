import itertools

from hypothesis import given
from hypothesis import strategies as st

from nas.pareto import front, spread

POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(1, 6).map(float)), max_size=30)


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


@given(POINTS)
def test_front_is_what_no_point_beats(points: list[tuple[float, float]]) -> None:
    unbeaten = {p for p in points if not any(beats(q, p) for q in points)}
    assert {points[i] for i in front(points)} == unbeaten


@given(POINTS)
def test_front_rises_in_latency_and_in_score_without_repeats(points: list[tuple[float, float]]) -> None:
    members = [points[i] for i in front(points)]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(members))


def test_of_equal_points_the_first_stays() -> None:
    assert front([(0.5, 1.0), (0.5, 1.0)]) == [0]


def test_nothing_has_an_empty_front() -> None:
    assert front([]) == []


@given(st.integers(0, 40), st.integers(1, 12))
def test_spread_keeps_both_ends_and_repeats_nothing(members: int, size: int) -> None:
    chosen = spread(range(members), size)
    assert len(chosen) == len(set(chosen)) == min(members, size)
    assert chosen == sorted(chosen)
    assert size < 2 or members < 2 or (chosen[0], chosen[-1]) == (0, members - 1)


def test_spread_of_one_is_the_slowest() -> None:
    assert spread([4, 5, 6], 1) == [6]
