"""SAMPLERS: name → a function (seed, trials) giving an Optuna sampler; every one proposes from flat categoricals.

A sampler is made anew for each proposal, seeded by (seed, proposal number): Optuna keeps no sampler state in its storage,
so this is what makes a resumed search propose what an unbroken one would.
"""

from nas.samplers import nsga2, random, tpe

__all__ = ["SAMPLERS", "proposal_seed"]

SAMPLERS = {"nsga2": nsga2.make, "random": random.make, "tpe": tpe.make}


def proposal_seed(seed: int, number: int) -> int:
    """A 32-bit seed for one proposal, independent between runs' seeds and between numbers."""
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
