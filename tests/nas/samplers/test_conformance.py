"""What every sampler must do."""

from pathlib import Path

import pytest

from nas.samplers import SAMPLERS, proposal_seed
from nas.store import Candidate
from search_spaces import Picks
from tests.nas.studies import MENUS, ROUND, Rows, at, proposed, row, study_config

ROUNDS = 6  # beyond every start-up (6) and first population (8) at 24 trials
BEGUN = 4


@pytest.fixture(scope="module", params=sorted(SAMPLERS))
def sampler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(sampler: str, tmp_path_factory: pytest.TempPathFactory) -> list[Picks]:
    """What an unbroken search proposes."""
    return proposed(study_config(sampler=sampler), tmp_path_factory.mktemp("whole") / "j", {}, ROUNDS)


@pytest.fixture(scope="module")
def begun(sampler: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Rows]:
    """Journal and rows of a search that ended early."""
    journal, rows = tmp_path_factory.mktemp("begun") / "j", Rows()
    proposed(study_config(sampler=sampler), journal, rows, BEGUN)
    return journal.read_bytes(), rows


def test_every_proposal_has_every_choice_at_a_value_of_its_menu(whole: list[Picks]) -> None:
    for picks in whole:
        assert list(picks) == list(MENUS)
        assert not [name for name, value in picks.items() if value not in MENUS[name]]


def test_values_keep_the_types_of_the_menu(whole: list[Picks]) -> None:
    for picks in whole:
        assert [type(v) for v in picks.values()] == [str, float, int, int, float]


def test_equal_seeds_give_equal_proposals(sampler: str, whole: list[Picks], tmp_path: Path) -> None:
    assert proposed(study_config(sampler=sampler), tmp_path / "j", {}, ROUNDS) == whole


def test_other_seeds_give_other_proposals(sampler: str, whole: list[Picks], tmp_path: Path) -> None:
    assert proposed(study_config(sampler=sampler, seed=1), tmp_path / "j", {}, 2) != whole[: 2 * ROUND]


def test_proposals_of_one_round_differ(whole: list[Picks]) -> None:
    assert len({tuple(p.values()) for p in whole[:ROUND]}) > 1


def test_resumed_from_its_journal_and_rows_it_proposes_the_same(
    sampler: str, whole: list[Picks], begun: tuple[bytes, Rows], tmp_path: Path
) -> None:
    (tmp_path / "j").write_bytes(begun[0])
    assert proposed(study_config(sampler=sampler), tmp_path / "j", dict(begun[1]), ROUNDS) == whole


@pytest.mark.parametrize("share", [0.0, 0.2, 0.77, 0.99])
def test_journal_lost_or_cut_short_anywhere_changes_no_proposal(
    sampler: str, whole: list[Picks], begun: tuple[bytes, Rows], share: float, tmp_path: Path
) -> None:
    content, rows = begun
    (tmp_path / "j").write_bytes(content[: int(len(content) * share)])
    assert proposed(study_config(sampler=sampler), tmp_path / "j", dict(rows), ROUNDS) == whole


@pytest.mark.parametrize("kept", [3, 9])
def test_rows_beyond_the_journal_and_journal_beyond_the_rows_both_change_no_proposal(
    sampler: str, whole: list[Picks], begun: tuple[bytes, Rows], kept: int, tmp_path: Path
) -> None:
    content, rows = begun
    (tmp_path / "j").write_bytes(content[: len(content) // 2])
    assert proposed(study_config(sampler=sampler), tmp_path / "j", {n: rows[n] for n in range(kept)}, ROUNDS) == whole


LADDER = {"x": tuple(range(10)), "y": tuple(range(10))}


def slow_above_three(number: int, picks: Picks) -> Candidate:
    """Ten of the hundred products of the menus are feasible; the score rises with the latency."""
    ms = 1.0 + float(picks["x"]) + float(picks["y"])
    if ms > 4.0:
        return row(number, picks, status="infeasible", latency=at(ms))
    return row(number, picks, score=ms / 10, latency=at(ms))


@pytest.mark.parametrize("learner", sorted(set(SAMPLERS) - {"random"}))
def test_infeasible_candidates_teach_the_sampler_to_stay_below_the_limit(learner: str, tmp_path: Path) -> None:
    # a random proposal is feasible in 1 of 10 cases: more than 10 of 40 have odds of 1 in 600
    config = study_config(sampler=learner, max_ms=4.0, trials=40)
    rows: Rows = {}
    proposed(config, tmp_path / "j", rows, 25, slow_above_three, LADDER)
    late = [rows[n].status == "trained" for n in range(60, 100)]
    assert sum(late) / len(late) > 0.25


def test_proposal_seeds_differ_between_numbers_and_between_runs() -> None:
    seeds = {proposal_seed(seed, number) for seed in range(20) for number in range(200)}
    # 4,000 draws of 32 bits: a collision has odds of 1 in 500
    assert len(seeds) == 4000
