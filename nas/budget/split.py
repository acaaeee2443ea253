"""The split of a budget: pure arithmetic from what things cost to what is done of each."""

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from nas.config import RunConfig

__all__ = ["BUDGETED", "Costs", "FinalCost", "Plan", "final_epochs_within", "makespan", "smallest_s", "split"]

BUDGETED = frozenset({"trials", "epochs", "bank_epochs", "final_epochs", "front_size", "baseline_widths"})
"""Fields that a budget decides, where the user does not."""

RESERVE = 0.04  # of the time: the last measurement cannot be cut short, and the aim is the middle of 85 to 105 %
WEIGHTS: Mapping[bool, Mapping[str, float]] = {  # of what is left once every part has the least that it needs
    True: {"bank": 0.45, "search": 0.15, "finals": 0.40},  # with a bank
    False: {"bank": 0.0, "search": 0.55, "finals": 0.45},
}
LEAST_CANDIDATES, LEAST_EPOCHS = 8, 2  # below that there is no search to speak of, and no full training
ENOUGH_CANDIDATES = 32  # more epochs of each only where there are as many
PROXY_EPOCHS = 5  # at most so many of a candidate (MnasNet section 5)
GOOD_EPOCHS = 15  # of a full training: a smaller front and fewer baselines before fewer than that
MOST_EPOCHS = 200  # of a bank and of a full training
CEILING = 4  # times as many trials as are expected: the clock ends the search


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalCost:
    """What a number of full trainings costs, in wall seconds: ``epoch_s`` for each epoch of all of them, ``besides_s`` for choosing,
    scoring and exporting them, ``measuring_s`` for their last measurement and the report."""

    front_size: int
    baseline_widths: int
    models: int
    epoch_s: float
    besides_s: float
    measuring_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What the parts of a run cost, in wall seconds with all workers at work.

    ``start_s``: until the first job is at work. ``candidate_s``: a candidate but for its epochs, ``epoch_s``: each of those (0: scores
    are inherited). ``finals``: the choices there are, the largest first. ``networks``: so many different ones has the space.
    ``bank_epochs_most``: more the bank of the run cannot have.
    """

    start_s: float
    bank_epoch_s: float
    candidate_s: float
    epoch_s: float
    finals: tuple[FinalCost, ...]
    networks: float = math.inf
    bank_epochs_most: int = MOST_EPOCHS


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds for each part, and what is done with them. The parts sum to the time there is plus ``lacking_s``, which is what the
    user's own numbers take beyond it. ``candidates`` are expected, ``trials`` the ceiling of the search."""

    start_s: float
    bank_s: float
    search_s: float
    finals_s: float
    measuring_s: float
    reserve_s: float
    lacking_s: float
    bank_epochs: int
    epochs: int
    candidates: int
    trials: int
    front_size: int
    baseline_widths: int
    models: int
    final_epochs: int

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by part, in the order of the run."""
        names = ("start", "bank", "search", "finals", "measuring", "reserve")
        return {name: getattr(self, f"{name}_s") for name in names}

    @property
    def after_search_s(self) -> float:
        """Seconds from the end of the search to that of the run, the reserve among them."""
        return self.finals_s + self.measuring_s + self.reserve_s

    def onto(self, config: RunConfig, free: Iterable[str]) -> RunConfig:
        """The configuration with the plan's numbers in those of its fields that are free."""
        return msgspec.structs.replace(config, **{name: getattr(self, name) for name in free})


def split(left_s: float, costs: Costs, config: RunConfig, free: frozenset[str]) -> Plan:
    """The plan for ``left_s`` seconds from now: fields in ``free`` are chosen, the others are the configuration's.

    Every part gets the least that it needs, and a share of the rest. The largest front with baselines is taken that leaves its
    trainings ``GOOD_EPOCHS``, or else the smallest.
    """
    plans = [_split_with(left_s, costs, cost, config, free) for cost in costs.finals]
    return next((plan for plan in plans if _is_good(plan, left_s, free)), plans[-1])


def smallest_s(costs: Costs, config: RunConfig, free: frozenset[str]) -> float:
    """The least time from now that a run can do with, where fields in ``free`` may be as small as they get."""
    found = (sum(_least(costs, cost, config, free).values()) + _fixed_s(costs, cost) for cost in costs.finals)
    return min(found) / (1 - RESERVE)


def final_epochs_within(seconds: float, each: Iterable[tuple[float, float]], workers: int) -> int:
    """The most epochs, 2 to 200, that full trainings (seconds an epoch, seconds besides) can have within a wall time.

    >>> final_epochs_within(66.0, [(10.0, 5.0), (10.0, 5.0), (2.0, 1.0)], 2), final_epochs_within(1.0, [(10.0, 5.0)], 2)
    (5, 2)
    """
    costs, most = list(each), LEAST_EPOCHS
    while most < MOST_EPOCHS and makespan(((most + 1) * epoch + besides for epoch, besides in costs), workers) <= seconds:
        most += 1
    return most


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Wall time of jobs on workers, the longest first.

    >>> makespan([3.0, 1.0, 2.0], 2), makespan([], 4)
    (3.0, 0.0)
    """
    ends = [0.0] * workers
    for job in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + job)
    return max(ends)


def _is_good(plan: Plan, left_s: float, free: frozenset[str]) -> bool:
    if plan.lacking_s:
        return False
    return plan.final_epochs >= GOOD_EPOCHS if "final_epochs" in free else plan.finals_s <= left_s / 2


def _split_with(left_s: float, costs: Costs, cost: FinalCost, config: RunConfig, free: frozenset[str]) -> Plan:
    reserve_s = RESERVE * left_s
    least, most = _least(costs, cost, config, free), _most(costs, cost, config, free)
    extra = left_s - reserve_s - _fixed_s(costs, cost) - sum(least.values())
    parts = _shared_out(extra, least, most, WEIGHTS[costs.bank_epoch_s > 0])
    bank_epochs = _whole(parts["bank"], costs.bank_epoch_s, config.bank_epochs, "bank_epochs" in free)
    final_epochs = _whole(parts["finals"], cost.epoch_s, config.final_epochs, "final_epochs" in free)
    bank_s, finals_s = bank_epochs * costs.bank_epoch_s, final_epochs * cost.epoch_s
    over_s = parts["bank"] + parts["finals"] - bank_s - finals_s
    search_s = min(parts["search"] + over_s, most["search"])
    epochs = _proxy_epochs(search_s, costs, config, free)
    each_s = costs.candidate_s + epochs * costs.epoch_s
    candidates = math.floor(min(search_s / each_s if each_s else math.inf, costs.networks, config.trials if "trials" not in free else 1e6))
    lacking_s = max(0.0, -extra)
    used_s = _fixed_s(costs, cost) + bank_s + search_s + finals_s
    return Plan(
        start_s=costs.start_s, bank_s=bank_s, search_s=search_s, finals_s=finals_s + cost.besides_s, measuring_s=cost.measuring_s,
        reserve_s=max(0.0, left_s + lacking_s - used_s), lacking_s=lacking_s, bank_epochs=bank_epochs, epochs=epochs,
        candidates=max(candidates, 1), trials=_ceiling(candidates, costs) if "trials" in free else config.trials,
        front_size=cost.front_size, baseline_widths=cost.baseline_widths, models=cost.models, final_epochs=final_epochs,
    )  # fmt: skip


def _fixed_s(costs: Costs, cost: FinalCost) -> float:
    return costs.start_s + cost.besides_s + cost.measuring_s


def _least(costs: Costs, cost: FinalCost, config: RunConfig, free: frozenset[str]) -> dict[str, float]:
    candidates = LEAST_CANDIDATES if "trials" in free else min(LEAST_CANDIDATES, config.trials)
    epochs = 1 if "epochs" in free else config.epochs
    return {
        "bank": costs.bank_epoch_s * (LEAST_EPOCHS if "bank_epochs" in free else config.bank_epochs),
        "search": min(candidates, costs.networks) * (costs.candidate_s + epochs * costs.epoch_s),
        "finals": cost.epoch_s * (LEAST_EPOCHS if "final_epochs" in free else config.final_epochs),
    }


def _most(costs: Costs, cost: FinalCost, config: RunConfig, free: frozenset[str]) -> dict[str, float]:
    candidates = costs.networks if "trials" in free else min(config.trials, costs.networks)
    epochs = PROXY_EPOCHS if "epochs" in free else config.epochs
    each_s = costs.candidate_s + epochs * costs.epoch_s
    least = _least(costs, cost, config, free)
    return {
        "bank": max(costs.bank_epoch_s * costs.bank_epochs_most if "bank_epochs" in free else 0.0, least["bank"]),
        "search": max(candidates * each_s if each_s else 0.0, least["search"]),
        "finals": max(cost.epoch_s * MOST_EPOCHS if "final_epochs" in free else 0.0, least["finals"]),
    }


def _shared_out(extra: float, least: Mapping[str, float], most: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
    """The parts with their shares of ``extra``; what a part cannot use goes to the others."""
    parts = dict(least)
    for _ in parts:  # each round but the last fills a part
        wanting = [name for name in parts if weights[name] and parts[name] < most[name]]
        total = sum(weights[name] for name in wanting)
        if extra <= 0 or not wanting:
            break
        shares = {name: min(extra * weights[name] / total, most[name] - parts[name]) for name in wanting}
        extra -= sum(shares.values())
        parts |= {name: parts[name] + share for name, share in shares.items()}
    return parts


def _whole(seconds: float, epoch_s: float, own: int, is_free: bool) -> int:
    if not is_free or not epoch_s:
        return own
    return max(LEAST_EPOCHS, min(MOST_EPOCHS, math.floor(seconds / epoch_s + 1e-9)))


def _proxy_epochs(search_s: float, costs: Costs, config: RunConfig, free: frozenset[str]) -> int:
    if "epochs" not in free or not costs.epoch_s:
        return config.epochs
    enough = min(ENOUGH_CANDIDATES if "trials" in free else config.trials, costs.networks)
    return max(1, min(PROXY_EPOCHS, math.floor((search_s / enough - costs.candidate_s) / costs.epoch_s)))


def _ceiling(candidates: int, costs: Costs) -> int:
    return max(1, math.floor(min(CEILING * max(candidates, LEAST_CANDIDATES), costs.networks)))
