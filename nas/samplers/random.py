"""Uniform over every menu: the baseline that any sampler must beat."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def make(seed: int, trials: int) -> "BaseSampler":
    """Optuna's random sampler."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)
