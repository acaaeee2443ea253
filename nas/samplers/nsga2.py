"""NSGA-II (Deb et al., 2002), with constraint domination."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def make(seed: int, trials: int) -> "BaseSampler":
    """Optuna's NSGA-II; its population is a quarter of the trials, 8 to 50, so that short searches have generations too."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=max(8, min(50, trials // 4)))
