from typing import Any

import pytest

from nas.errors import InvalidConfig
from nas.refinement.settings import Refinement, held_out_count


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "one of --target-ms and --target-ratio"),
        ({"target_ms": 1.0, "target_ratio": 0.5}, "one of --target-ms and --target-ratio"),
        ({"target_ratio": 1.2}, "--target-ratio must lie between 0 and 1, got 1.2"),
        ({"target_ms": -1.0}, "--target-ms must be a positive number, got -1.0"),
        ({"target_ratio": 0.5, "delta": 0.0}, "--delta must lie between 0 and 1, got 0.0"),
        ({"target_ratio": 0.5, "delta_decay": 1.5}, "--delta-decay must be above 0 and at most 1, got 1.5"),
        ({"target_ratio": 0.5, "steps": 0}, "--steps must be at least 1, got 0"),
        ({"target_ratio": 0.5, "kinds": ()}, "--kinds must name at least one kind, and each once"),
        ({"target_ratio": 0.5, "kinds": ("depth", "depth")}, "--kinds must name at least one kind, and each once"),
        ({"target_ratio": 0.5, "tune_lr": 0.0}, "--tune-lr must be above 0 and at most 1, got 0.0"),
        ({"target_ratio": 0.5, "members": 0}, "--members must be at least 1, got 0"),
    ],
)
def test_mistake_is_said_with_its_value(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        Refinement(seed_id="x", origin="y", **changed)


@pytest.mark.parametrize(("asked", "images", "count"), [(None, 1000, 200), (None, 100_000, 5000), (None, 30, 10), (40, 100, 40)])
def test_held_out_images_are_a_fifth_unless_told_otherwise(asked: int | None, images: int, count: int) -> None:
    assert held_out_count(asked, images, 10) == count


@pytest.mark.parametrize(("asked", "images"), [(9, 100), (51, 100), (None, 19)])
def test_too_few_or_too_many_held_out_images_are_refused(asked: int | None, images: int) -> None:
    with pytest.raises(InvalidConfig, match=r"--held-out must be 10 \(one image of each class\) to"):
        held_out_count(asked, images, 10)
