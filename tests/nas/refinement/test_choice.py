from nas.refinement.choice import ranked
from nas.refinement.record import Tried
from nas.refinement.scaling import scaled
from tests.nas.refinement.walks import SEED


def tried(factor: float, ms: float, score: float) -> Tried:
    return Tried(step=1, parent_id="", arch=scaled(SEED, factor), ms=ms, score=score)


def test_proposal_that_is_better_in_both_ways_stands_before_the_one_it_beats() -> None:
    # against 0.700 at 10 ms, 0.2 points for 1 ms are the higher ratio; 0.3 points for 3 ms are more of both
    less, more = tried(0.9, 9.0, 0.702), tried(0.8, 7.0, 0.703)
    assert ranked("ratio", [less, more], 0.7, 10.0) == [more, less]


def test_what_is_beaten_stands_behind_all_that_is_not() -> None:
    beaten, best, fast = tried(0.9, 9.0, 0.702), tried(0.8, 7.0, 0.703), tried(0.5, 2.0, 0.6)
    assert ranked("ratio", [beaten, fast, best], 0.7, 10.0) == [best, fast, beaten]


def test_among_losses_the_ratio_decides_as_published() -> None:
    # 1 point for 1 ms, 3 points for 6 ms
    near, far = tried(0.9, 9.0, 0.79), tried(0.5, 4.0, 0.77)
    assert ranked("ratio", [near, far], 0.8, 10.0) == [far, near]
    assert ranked("accuracy", [far, near], 0.8, 10.0) == [near, far]
