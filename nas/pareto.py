"""Pareto fronts of (score, latency): a higher score and a lower latency are better."""

from collections.abc import Sequence

__all__ = ["front", "spread"]


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (score, latency_ms) that no other point beats, by rising latency.

    Point a beats b when it is no worse in both and better in one; of equal points the first stays.

    >>> front([(0.5, 1.0), (0.6, 2.0), (0.4, 1.5), (0.6, 2.0)])
    [0, 1]
    """
    found: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0], i)):
        if not found or points[i][0] > points[found[-1]][0]:
            found.append(i)
    return found


def spread(members: Sequence[int], size: int) -> list[int]:
    """At most ``size`` of a front's members (by rising latency), both ends kept, evenly by rank.

    >>> spread([3, 1, 4, 1, 5, 9, 2], 3)
    [3, 1, 2]
    """
    if len(members) <= size:
        return list(members)
    if size == 1:
        return [members[-1]]
    step = (len(members) - 1) / (size - 1)
    return [members[round(k * step)] for k in range(size)]
