"""What a refinement is about to do and how long that should take, said before it is done."""

import time

from latency.console import count, duration, ms, three_digits
from nas.cost import count as cost_of
from nas.forecast import measured_speed
from nas.models import Network
from nas.refinement.aimed import FINALISTS
from nas.refinement.bench import Bench
from nas.refinement.forecast import measured_tuning, steps_left
from nas.refinement.places import places
from nas.refinement.pricing import anchored
from nas.refinement.sizing import Proposal, reachable
from nas.refinement.steps import tuning_recipe
from nas.store import Candidate

__all__ = ["say_plan", "say_seed_training"]


def say_seed_training(bench: Bench) -> None:
    """Says that the seed has yet to learn the task, and how long that should take."""
    config, arch = bench.config, bench.seed.arch
    speed = measured_speed([arch], bench.task, config.recipe.batch)
    wait = duration(speed.seconds(arch, len(bench.task.train), config.final_epochs))
    bench.console.say(f"first {bench.seed.origin} learns {bench.task.data} in {config.final_epochs} epochs (~{wait})")


def say_plan(bench: Bench, seed: Candidate, network: Network, *, done: int) -> None:
    """Says seed, data, target, plan and time, the last from a fine-tuning of ``network``, the seed's, that is timed now.

    Args:
        bench: of the run.
        seed: the path's first row.
        network: with the seed's weights; it is left as it was.
        done: steps that are taken by now.
    """
    say, settings, latency, task = bench.console.say, bench.settings, bench.seed_latency, bench.task
    for note in task.notes:
        bench.console.warn(note)
    proposals, cut_ms, looked_up_ms = _first_proposals(bench)
    figure, share = ms(latency.p50_ms, latency.low_ms, latency.high_ms), 100 * bench.target_ms / latency.p50_ms
    steps = steps_left(latency.p50_ms, bench.target_ms, cut_ms, settings.delta_decay)
    macs, held_out = count(cost_of(seed.arch).macs), bench.part.held_out
    say(f"seed     {macs} MACs, {figure} on {bench.device.info().name}, held-out {seed.score or 0.0:.3f}")
    say(f"data     {task.data}: {len(task.train):,} training images, {held_out:,} of them held out to choose by")
    passing = "".join(f"{three_digits(t)} and then " for t in bench.targets_ms(latency.p50_ms)[:-1])
    say(f"target   {passing}{three_digits(bench.target_ms)} ms, {share:.0f} % of the seed; proposals are sized by {bench.pricing.name}")
    _say_doubts(bench)
    if done:
        say(f"taking up {bench.out}: {done} steps are done")
    say(f"plan     ~{steps} steps that save {three_digits(cut_ms)} ms each, of ~{len(proposals)} proposals (looked up in "
        f"{looked_up_ms:.0f} ms) that are each trained for {settings.steps} steps,")  # fmt: skip
    if settings.search:
        say(f"         then {settings.search} networks of a search for the latency reached for {bench.config.epochs} epochs,")
    say(f"         then {_full_count(bench)} networks for {bench.config.final_epochs} epochs")
    speed = measured_tuning(network, task, tuning_recipe(bench.config, settings), bench.part)
    step_s = speed.seconds(bench.part, trainings=len(proposals) + 1, workers=bench.workers)
    smaller = (1 + share / 100) / 2  # networks shrink on the way, and the scaled ones are as small
    epoch_s = len(task.train) / bench.config.recipe.batch * speed.step_s
    epochs = bench.config.final_epochs * _full_count(bench) + bench.config.epochs * settings.search
    all_s = smaller * (steps * step_s + epochs * epoch_s / bench.workers)
    say(f"time     ~{duration(step_s)} for the first step, {bench.workers} at a time; ~{duration(all_s)} in all; Ctrl-C keeps what is done")


def _first_proposals(bench: Bench) -> tuple[list[Proposal], float, float]:
    """Those of the first step, the milliseconds that each saves at least, and those that finding them takes."""
    began = time.perf_counter()
    arch, seed_ms = bench.seed.arch, bench.seed_latency.p50_ms
    cut_ms = min(bench.delta_ms, seed_ms - bench.target_ms)
    found, cut_ms = reachable(arch, places(arch, bench.settings.kinds), seed_ms, cut_ms, anchored(bench.pricing.ms, arch, seed_ms))
    return found, cut_ms, 1000 * (time.perf_counter() - began)


def _full_count(bench: Bench) -> int:
    """The last network both ways, the other members, the seed, a scaled network beside each member, and the best of a search."""
    settings = bench.settings
    return 2 + 2 * (len(settings.passing) + 1 if settings.passing else settings.members) + min(settings.search, FINALISTS)


def _say_doubts(bench: Bench) -> None:
    asked_ms = bench.settings.delta * bench.seed_latency.p50_ms
    if asked_ms < bench.least_ms:
        share = 100 * bench.delta_ms / bench.seed_latency.p50_ms
        bench.console.say(
            f"delta    {three_digits(asked_ms)} ms is less than twice the ± of the seed's latency: raised to "
            f"{three_digits(bench.delta_ms)} ms, {share:.1f} % of the seed"
        )
    interval, seed_ms = bench.pricing.interval_ms(bench.seed.arch), bench.seed_latency.p50_ms
    if interval and not interval[0] <= seed_ms <= interval[1]:
        low, high = map(three_digits, interval)
        bench.console.say(f"table    it says {low} to {high} ms for the seed: its estimates are scaled to what is measured")
    if bench.config.table is None:
        bench.console.warn("without --table proposals are sized by MACs, a poor guide to latency on most devices; the path is measured")
