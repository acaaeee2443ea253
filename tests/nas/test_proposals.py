from pathlib import Path

import optuna
import pytest

from nas.errors import UnknownName
from nas.proposals import Proposals
from search_spaces import Picks
from tests.nas.studies import MENUS, Rows, answered, at, proposed, row, study_config, trials

COMPLETE, FAIL, RUNNING = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL, optuna.trial.TrialState.RUNNING


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


def test_trained_candidate_is_told_with_both_values(journal: Path) -> None:
    proposals = Proposals(study_config(), MENUS, journal)
    proposals.tell(row(0, proposals.picks(0), score=0.7, latency=at(2.5)))
    assert [(t.state, t.values) for t in trials(journal)] == [(COMPLETE, [0.7, 2.5])]


def test_infeasible_candidate_is_told_complete_with_the_worst_score_and_its_excess(journal: Path) -> None:
    proposals = Proposals(study_config(max_ms=2.0), MENUS, journal)
    proposals.tell(row(0, proposals.picks(0), status="infeasible", latency=at(3.0)))
    (trial,) = trials(journal)
    assert (trial.state, trial.values, trial.constraints) == (COMPLETE, [0.0, 3.0], {"max_ms": 0.5})


def test_candidate_that_is_in_the_limit_and_was_never_trained_is_told_as_failed(journal: Path) -> None:
    proposals = Proposals(study_config(max_ms=2.0), MENUS, journal)
    proposals.tell(row(0, proposals.picks(0), status="infeasible", latency=at(1.0)))  # too slow where the run was before
    assert trials(journal)[0].state == FAIL


def test_feasible_candidate_has_no_positive_constraint(journal: Path) -> None:
    proposals = Proposals(study_config(max_ms=2.0), MENUS, journal)
    proposals.tell(row(0, proposals.picks(0), score=0.5, latency=at(1.0)))
    assert trials(journal)[0].constraints == {"max_ms": -0.5}


def test_failed_candidate_is_told_as_failed(journal: Path) -> None:
    proposals = Proposals(study_config(), MENUS, journal)
    proposals.tell(row(0, proposals.picks(0), status="failed", latency=at(1.0), error="boom"))
    assert trials(journal)[0].state == FAIL


def test_scalar_reward_is_told_as_one_value(journal: Path) -> None:
    proposals = Proposals(study_config(reward="hard", target_ms=1.0), MENUS, journal)
    proposals.tell(row(0, proposals.picks(0), score=0.8, latency=at(2.0)))
    assert trials(journal)[0].values == [0.4]


def test_telling_twice_is_harmless(journal: Path) -> None:
    proposals = Proposals(study_config(), MENUS, journal)
    told = row(0, proposals.picks(0), score=0.7, latency=at(2.5))
    for _ in range(2):
        proposals.tell(told)
    Proposals(study_config(), MENUS, journal).tell(told)
    assert len(trials(journal)) == 1


def test_picks_are_asked_once(journal: Path) -> None:
    proposals = Proposals(study_config(), MENUS, journal)
    assert proposals.picks(0) == proposals.picks(0)
    assert len(proposals) == 1


def test_picks_of_a_row_win_over_the_sampler(journal: Path) -> None:
    known: Picks = {"a.op": "conv", "a.width": 2.0, "b.kernel": 5, "b.depths": 1, "c.se": 0.25}
    assert Proposals(study_config(), MENUS, journal).picks(0, known) == known


def test_proposal_killed_while_it_was_asked_is_asked_again_alike(journal: Path, tmp_path: Path) -> None:
    picks = Proposals(study_config(), MENUS, journal).picks(0)
    lines = journal.read_bytes().splitlines(keepends=True)
    for cut in range(2, len(lines)):  # the study itself takes the first two lines
        torn = tmp_path / f"torn{cut}"
        torn.write_bytes(b"".join(lines[:cut]))
        again = Proposals(study_config(), MENUS, torn)
        assert again.picks(0) == picks
        again.tell(answered(0, picks))
        assert [t.state for t in trials(torn) if t.state != FAIL] == [COMPLETE]


def test_lock_that_a_killed_search_left_does_not_block(journal: Path) -> None:
    Proposals(study_config(), MENUS, journal).picks(0)
    Path(f"{journal}.lock").symlink_to(journal)
    assert len(Proposals(study_config(), MENUS, journal)) == 1


def test_no_trial_is_left_running_at_the_end(journal: Path) -> None:
    rows: Rows = {}
    proposed(study_config(), journal, rows, 3)
    assert [t.state for t in trials(journal)] == [COMPLETE] * 12


def test_space_without_choices_can_be_asked(journal: Path) -> None:
    assert Proposals(study_config(), {}, journal).picks(0) == {}


def test_unknown_sampler_is_refused_with_a_suggestion(journal: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'nsga2'"):
        Proposals(study_config(sampler="nsga3"), MENUS, journal)
    assert not journal.exists()
