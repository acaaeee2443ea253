"""The Optuna study that decides: seeded asks, tells in order, both reproducible after a kill at any moment."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nas import objective
from nas.config import RunConfig
from nas.samplers import SAMPLERS, proposal_seed
from nas.store import Candidate, drop_torn_line
from search_spaces import Pick, Picks, UnknownName

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["Proposals"]

_MARK = "proposal"  # set last: a trial that has it holds all its picks


class Proposals:
    """Numbered proposals of one study, kept in ``study.journal`` and reconciled from the run's rows.

    Every choice of the space is suggested in every trial as a flat categorical: Optuna's samplers work on the parameters
    that all trials share. Proposal n is drawn by a sampler seeded with (seed, n), and sees what was told before it was asked.
    """

    def __init__(
        self, config: RunConfig, choices: Mapping[str, Sequence[Pick]], journal: Path, *, excess: Callable[[float], float] | None = None
    ) -> None:
        """``excess`` of a latency in ms: above 0 is infeasible; None: that of ``max_ms``."""
        import optuna

        if config.sampler not in SAMPLERS:
            raise UnknownName.among("sampler", config.sampler, SAMPLERS)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config, self._choices = config, choices
        self._excess = excess or partial(objective.excess, config)
        from optuna.storages.journal import JournalFileBackend

        drop_torn_line(journal)
        Path(f"{journal}.lock").unlink(missing_ok=True)  # a symlink that a killed search left; the run folder's own lock is ours
        self._study = optuna.create_study(
            study_name="search",
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
            directions=objective.directions(config),
            sampler=optuna.samplers.RandomSampler(),  # draws nothing while old trials are taken up; each ask sets its own
            load_if_exists=True,
        )
        self._trials: dict[int, optuna.trial.Trial] = {}
        self._told: set[int] = set()
        self._picks: dict[int, Picks] = {}
        self._recover()

    def __len__(self) -> int:
        """How many proposals were asked; they are numbered from 0 without a gap."""
        return len(self._picks)

    def picks(self, number: int, known: Picks | None = None) -> Picks:
        """The picks of proposal ``number``, asked now if it is the next one.

        ``known``: the picks that the run's row for this number holds, for a journal that was lost or cut short.
        """
        if number not in self._picks:
            assert number == len(self._picks), "proposals are asked in order"
            self._ask(number, known)
        return self._picks[number]

    def tell(self, row: Candidate) -> None:
        """Tells one finished candidate; a failed one as failed, an infeasible one with the worst score and its excess. One that was too
        slow for another device and would not be for this one was never trained: nothing is known of it, so it is told as failed.

        Telling twice is harmless, so that a resumed search can tell all its rows again.
        """
        import optuna

        assert row.number is not None, "only proposals are told"
        if row.number in self._told:
            return
        trial = self._trials.pop(row.number)
        self._told.add(row.number)
        if row.status == "failed" or row.latency is None or (row.score is None and self._excess(row.latency.p50_ms) <= 0):
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        if not trial.constraints:
            trial.set_constraint("max_ms", self._excess(row.latency.p50_ms))
        self._study.tell(trial, self._values(row))

    def _values(self, row: Candidate) -> list[float]:
        assert row.latency is not None, "told rows were measured"
        score = row.score if row.score is not None else objective.WORST_SCORE
        return objective.values(self._config, score, row.latency.p50_ms)

    def _ask(self, number: int, known: Picks | None) -> None:
        import optuna

        sampler = self._sampler(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of PartialFixedSampler, since Optuna 2.4
            self._study.sampler = optuna.samplers.PartialFixedSampler(dict(known), sampler) if known else sampler
        trial = self._study.ask()
        self._picks[number] = {name: cast(Pick, trial.suggest_categorical(name, list(menu))) for name, menu in self._choices.items()}
        trial.set_user_attr(_MARK, number)
        self._trials[number] = trial

    def _sampler(self, number: int) -> "BaseSampler":
        return SAMPLERS[self._config.sampler](proposal_seed(self._config.seed, number), self._config.trials)

    def _recover(self) -> None:
        """Takes up the journal's proposals; a trial killed while it was being asked is closed, and asked again."""
        import optuna

        for frozen in self._study.get_trials(deepcopy=False):
            number = frozen.user_attrs.get(_MARK)
            if number is None:
                if not frozen.state.is_finished():
                    self._study.tell(frozen.number, state=optuna.trial.TrialState.FAIL)
                continue
            self._picks[number] = frozen.params
            if frozen.state.is_finished():
                self._told.add(number)
            else:
                self._trials[number] = optuna.trial.Trial(self._study, frozen._trial_id)
