"""A run's numbers from its budget: planned before work, shown, refused where nothing fits, and planned again on the way."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from latency.console import duration
from nas.bench import Bench, samples
from nas.budget.bank import GENEROUS, train_bank_until
from nas.budget.costs import costs_of, final_costs, trained_in_full
from nas.budget.kept import Kept, TakenUp, closed, keep, kept_budget
from nas.budget.split import BUDGETED, LEAST_CANDIDATES, LEAST_EPOCHS, MOST_EPOCHS, RESERVE, Costs, Plan, smallest_s, split
from nas.errors import InvalidConfig
from nas.finals import search_front
from nas.forecast import SLOWDOWN, Speed, speed_of
from nas.rounds import SearchRounds
from nas.sharing.run_bank import scored, search_seconds, train_run_bank
from nas.store import BANK_FILE, read_rows, write_config

__all__ = [
    "Prices", "bank_in_time", "budgeted", "close_budget", "note_searched", "open_budget", "replanned", "reserve", "show_plan", "spare_s",
]  # fmt: skip

STALE_S = 5.0  # how often what the full trainings need is worked out anew


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What things cost now: training, and wall seconds of measuring a network."""

    speed: Speed
    price_s: float


def budgeted(bench: Bench, prices: Prices, taken: TakenUp) -> Bench:
    """The bench with the budget's plan and, in its configuration, the numbers that the user left open; the same without a budget.

    Raises:
        InvalidConfig: a new run's budget is too short for anything; names the shortest that would do.
    """
    if bench.deadline is None:
        return bench
    bench = replace(bench, free=taken.open_fields, opened_s=time.monotonic() - bench.began, is_searched=taken.is_searched)
    rows = read_rows(bench.out / "candidates.jsonl")
    done = scored(rows)
    costs = costs_of(bench, prices.speed, prices.price_s, has_bank=done > 0, rows=rows)
    if not done and not (bench.out / BANK_FILE).exists():
        _refuse_too_short(bench, costs)
    if taken.kept:
        costs = replace(costs, bank_epochs_most=bench.config.bank_epochs)
    plan = split(max(bench.left_s, 1.0), _searched(costs, bench), bench.config, bench.free)
    if done and "trials" in bench.free:
        plan = msgspec.structs.replace(plan, trials=max(bench.config.trials, done + plan.trials))
    config = plan.onto(bench.config, bench.free & {"trials"} if taken.kept else bench.free)
    if "bank_epochs" in bench.free and not taken.kept and costs.bank_epoch_s:  # fewer, once the pace of its steps is known
        config = msgspec.structs.replace(config, bank_epochs=min(MOST_EPOCHS, GENEROUS * plan.bank_epochs))
    return replace(bench, plan=plan, config=config)


def _searched(costs: Costs, bench: Bench) -> Costs:
    """The costs, without those of a search that is over."""
    return replace(costs, candidate_s=0.0, epoch_s=0.0) if bench.is_searched else costs


def _refuse_too_short(bench: Bench, costs: Costs) -> None:
    config, budget_s = bench.config, bench.config.budget_s or 0.0
    opened_s, rest_s = budget_s - bench.left_s, smallest_s(costs, config, BUDGETED)
    least_s = opened_s + rest_s
    if opened_s + rest_s / SLOWDOWN > budget_s:  # the rest may yet be that much faster than it is forecast
        raise InvalidConfig(
            f"--budget {duration(budget_s)} is too short for {bench.space.name} on {len(bench.task.train):,} images here: at the speed "
            f"just measured, {LEAST_CANDIDATES} candidates and the least of all else take ~{duration(least_s)}; allow "
            "that, or lower --train-images, --image-size or --width, or name fewer --baseline"
        )


def show_plan(bench: Bench, plan: Plan) -> None:
    """Prints the plan as a table, and a sentence where the user's own numbers do not fit it or leave time over."""
    config, say, kept = bench.config, bench.console.say, kept_budget(bench.out)
    chosen = frozenset(kept.free) if kept else bench.free

    def own(name: str) -> str:
        return "" if name in chosen else ", as asked"

    epochs = f" of {_epochs(plan.epochs)}{own('epochs')}" if config.evaluate == "alone" else ""
    what = {
        "start": "starting workers",
        "bank": f"~{_epochs(plan.bank_epochs)}{own('bank_epochs')}",
        "search": f"~{plan.candidates} candidates{epochs}",
        "finals": f"{plan.front_size} of the front and ~{plan.models - plan.front_size} baselines, ~{_epochs(plan.final_epochs)}"
                  f"{own('final_epochs')}",
        "measuring": f"~{plan.models} models side by side, and the report",
        "reserve": "",
    }  # fmt: skip
    rows = [(name, what[name], f"~{duration(seconds)}") for name, seconds in plan.parts.items() if seconds]
    say(f"budget   {duration(max(bench.left_s, 0.0))} of {duration(config.budget_s or 0.0)} are left; shared out anew on the way")
    bench.console.table("", ("part", "what", "time"), rows, to="err")
    if plan.lacking_s:
        bench.console.warn(
            f"what you asked for takes ~{duration(plan.lacking_s)} longer than the budget: give fewer --final-epochs, --bank-epochs, "
            "--epochs or a smaller --front-size, or a longer --budget"
        )
    elif plan.reserve_s > 0.15 * bench.left_s:
        say(f"the run needs less than its budget: about {duration(plan.reserve_s)} will be left over")


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def open_budget(bench: Bench, taken: TakenUp) -> None:
    """Notes in the run folder what the program decides, the plan, and that a start is at work."""
    if bench.plan:
        began_at = time.time() - (time.monotonic() - bench.began)
        searched_s, trials = (taken.kept.searched_s, taken.kept.searched_trials) if taken.kept else (0.0, 0)
        free = tuple(sorted(taken.free))
        keep(bench.out, Kept(
            free=free, plan=bench.plan, began_at=began_at, used_s=taken.used_s, searched_s=searched_s, searched_trials=trials,
        ))  # fmt: skip


def note_searched(bench: Bench) -> None:
    """Notes in the run folder that the search is over, and the numbers of the full trainings."""
    if bench.config.budget_s and (kept := kept_budget(bench.out)):
        write_config(bench.out, bench.config)
        searched_s = max(kept.searched_s, bench.config.budget_s)
        keep(bench.out, msgspec.structs.replace(kept, searched_s=searched_s, searched_trials=bench.config.trials))


def close_budget(bench: Bench) -> None:
    """Notes and says what was used of a budget in the end."""
    kept = kept_budget(bench.out)
    if bench.deadline is None or kept is None:
        return
    kept = closed(kept, time.monotonic() - bench.began)
    keep(bench.out, kept)
    bench.console.say(f"budget   {duration(kept.used_s)} of {duration(bench.config.budget_s or 0.0)} used")


def bank_in_time(bench: Bench) -> Bench:
    """Trains the run's bank, with a budget that decides about it for its share of the time; the bench with what was decided."""
    config = bench.config
    if bench.plan is None or "bank_epochs" not in bench.free:
        train_run_bank(config, bench.out, bench.space, bench.task, bench.console)
        return bench
    config = train_bank_until(
        config, bench.out, bench.space, bench.task, bench.console, until=time.monotonic() + bench.plan.bank_s,
        on_shorter=lambda shorter: write_config(bench.out, shorter),
    )  # fmt: skip
    return replace(bench, config=config)


def replanned(bench: Bench, prices: Prices) -> Bench:
    """The bench with the time that is left shared out anew between what is left, behind the bank."""
    if bench.plan is None:
        return bench
    rows = read_rows(bench.out / "candidates.jsonl")
    costs = costs_of(bench, prices.speed, prices.price_s, has_bank=True, rows=rows)
    return replace(bench, plan=split(max(bench.left_s, 1.0), _searched(costs, bench), bench.config, bench.free - {"epochs", "bank_epochs"}))


def reserve(bench: Bench, prices: Prices) -> Callable[[SearchRounds], float]:
    """How many seconds before the end of the budget the next candidate may not be begun, by the speeds of the rows so far."""
    worked_out_at, known = -STALE_S, 0.0
    done = trained_in_full(bench, read_rows(bench.out / "candidates.jsonl"))

    def reserve_s(rounds: SearchRounds) -> float:
        nonlocal worked_out_at, known
        if bench.is_searched:
            return math.inf
        if rounds.trained < bench.workers:
            return -math.inf  # without candidates there is no front
        if time.monotonic() - worked_out_at >= STALE_S:
            worked_out_at, known = time.monotonic(), _needed_s(bench, prices, rounds, done)
        return known

    return reserve_s


def _needed_s(bench: Bench, prices: Prices, rounds: SearchRounds, done: frozenset[str]) -> float:
    config, task, rows = bench.config, bench.task, list(rounds.rows.values())
    speed = speed_of(rows, len(task.train), prices.speed)
    members = [r.arch for r in search_front(rows)]
    costs = final_costs(bench, speed, members or samples(bench), prices.price_s, is_known=bool(members), done=done)
    epochs = LEAST_EPOCHS if "final_epochs" in bench.free else config.final_epochs
    least_s = min(c.besides_s + c.measuring_s + epochs * c.epoch_s for c in costs)
    planned_s = bench.plan.finals_s + bench.plan.measuring_s if bench.plan and "final_epochs" in bench.free else 0.0
    _, job_s = search_seconds(config, bench.space, task, samples(bench), speed)
    return max(least_s, planned_s) + RESERVE * (config.budget_s or 0.0) + job_s


def spare_s(bench: Bench) -> float:
    """Seconds until the run should end: a little before its budget does."""
    return bench.left_s - RESERVE * (bench.config.budget_s or 0.0)
