"""Tree-structured Parzen estimator, also over several objectives (Ozaki et al., GECCO 2020), with constraints."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def make(seed: int, trials: int) -> "BaseSampler":
    """Optuna's TPE; a quarter of short searches is random, at most Optuna's own 10 start-up trials.

    Multivariate: one choice at a time, TPE takes the best entry of every menu, and so the same network again and again.
    """
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, n_startup_trials=max(2, min(10, trials // 4)), multivariate=True)
