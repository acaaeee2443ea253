"""What a refinement is about to do and how long that should take, said before it is done."""

import time
from collections.abc import Sequence

from latency.console import count, duration, ms, three_digits
from nas.cost import count as cost_of
from nas.forecast import measured_speed
from nas.models import Network
from nas.refinement.aimed import FINALISTS
from nas.refinement.bench import RefineBench
from nas.refinement.forecast import measured_tuning, steps_left
from nas.refinement.places import places
from nas.refinement.pricing import anchored
from nas.refinement.sizing import Proposal, reachable
from nas.refinement.steps import tuning_recipe
from nas.store import Candidate

__all__ = ["say_plan", "say_seed_training"]


def say_seed_training(bench: RefineBench) -> None:
    """Says that the seed has yet to learn the task, and how long that should take."""
    config, arch = bench.config, bench.seed.arch
    speed = measured_speed([arch], bench.task, config.recipe.batch)
    wait = duration(speed.seconds(arch, len(bench.task.train), config.final_epochs))
    bench.console.say(f"first {bench.seed.origin} learns {bench.task.data} in {config.final_epochs} epochs (~{wait})")


def say_plan(bench: RefineBench, rows: Sequence[Candidate], network: Network) -> None:
    """Says seed, data, target, and plan and time of what is left, the last from a fine-tuning of ``network`` that is timed now.

    Args:
        bench: of the run.
        rows: all that the run has by now, those of the path among them.
        network: with the seed's weights; it is left as it was.
    """
    seed, *taken = [r for r in rows if r.stage == "refine"]
    last = taken[-1] if taken else seed
    say, settings, latency, task = bench.console.say, bench.settings, bench.seed_latency, bench.task
    for note in task.notes:
        bench.console.warn(note)
    proposals, cut_ms, looked_up_ms = _next_proposals(bench, last, len(taken))
    figure, share = ms(latency.p50_ms, latency.low_ms, latency.high_ms), 100 * bench.target_ms / latency.p50_ms
    steps = steps_left(_p50(last), bench.target_ms, cut_ms, settings.delta_decay, bench.least_ms)
    full, search = _trainings_left(bench, rows)
    macs, held_out = count(cost_of(seed.arch).macs), bench.part.held_out
    say(f"seed     {macs} MACs, {figure} on {bench.device.info().name}, held-out {seed.score or 0.0:.3f} (it was trained on these)")
    say(f"data     {task.data}: {len(task.train):,} training images, {held_out:,} of them held out to choose by")
    passing = "".join(f"{three_digits(t)} and then " for t in bench.targets_ms(latency.p50_ms)[:-1])
    if settings.target_ms and latency.high_ms - latency.low_ms > 0.04 * latency.p50_ms:
        bench.console.warn(f"the path's latencies are ratios to the seed's {figure}: in ms the target is met no more exactly than that")
    say(f"target   {passing}{three_digits(bench.target_ms)} ms, {share:.0f} % of the seed; proposals are sized by {bench.pricing.name}")
    _say_doubts(bench)
    if taken:
        say(f"taking up {bench.out}: {len(taken)} steps are done, down to {three_digits(_p50(last))} ms")
    if steps:
        more = "more " * bool(taken)
        say(f"plan     ~{steps} {more}steps that save {three_digits(cut_ms)} ms each, of ~{len(proposals)} proposals (looked up in "
            f"{looked_up_ms:.0f} ms) that are each trained for {settings.steps} steps,")  # fmt: skip
    else:
        say("plan     no more steps: the target is reached,")
    if search:
        say(f"         then {search} networks of a search for the latency reached for {bench.config.epochs} epochs,")
    beside = "" if settings.search else "; none of a search to compare with, which --search N adds, now or later"
    say(f"         then {full} networks for {bench.config.final_epochs} epochs{beside}")
    _say_time(bench, network, _p50(last), steps=steps, proposals=len(proposals), full=full, search=search)


def _say_time(bench: RefineBench, network: Network, now_ms: float, *, steps: int, proposals: int, full: int, search: int) -> None:
    """Says how long the next step and everything that is left should take."""
    config, seed_ms = bench.config, bench.seed_latency.p50_ms
    speed = measured_tuning(network, bench.task, tuning_recipe(config, bench.settings), bench.part)
    step_s = now_ms / seed_ms * speed.seconds(bench.part, trainings=proposals + 1, workers=bench.workers) if steps else 0.0
    step_s += bench.scale.timing_s * bool(steps)
    on_path = (1 + bench.target_ms / now_ms) / 2  # networks shrink on the way, and the scaled ones are as small
    smaller = (1 + bench.target_ms / seed_ms) / 2
    epoch_s = len(bench.task.train) / config.recipe.batch * speed.step_s
    full_s = smaller * (config.final_epochs * full + config.epochs * search) * epoch_s / bench.workers
    first = f"~{duration(step_s)} for the {'next' if now_ms < seed_ms else 'first'} step, " if steps else ""
    bench.console.say(
        f"time     {first}{bench.workers} at a time; ~{duration(on_path * steps * step_s + full_s)} in all; Ctrl-C keeps what is done"
    )


def _next_proposals(bench: RefineBench, last: Candidate, step: int) -> tuple[list[Proposal], float, float]:
    """Those of the next step, the milliseconds that each saves at least, and those that finding them takes."""
    arch, now_ms = last.arch, _p50(last)
    if now_ms <= bench.target_ms:
        return [], 0.0, 0.0
    cut_ms = max(min(bench.delta_ms * bench.settings.delta_decay**step, now_ms - bench.target_ms), bench.least_ms)
    able, estimate = places(arch, bench.settings.kinds), anchored(bench.pricing.ms, arch, now_ms)
    reachable(arch, able, now_ms, cut_ms, estimate, bench.least_ms)  # once for what a table's predictor learns at its first use
    began = time.perf_counter()
    found, cut_ms = reachable(arch, able, now_ms, cut_ms, estimate, bench.least_ms)
    return found, cut_ms, 1000 * (time.perf_counter() - began)


def _trainings_left(bench: RefineBench, rows: Sequence[Candidate]) -> tuple[int, int]:
    """Full trainings, and those of a search, that are left."""
    done = {(r.id, r.score_source) for r in rows if r.stage == "final" and r.status == "trained"} - {(bench.seed.arch.id, "tuned")}
    searched = sum(r.stage == "search" and r.status == "trained" for r in rows)
    return max(_full_count(bench) - len(done), 0), max(bench.settings.search - searched, 0)


def _p50(row: Candidate) -> float:
    assert row.latency is not None, "the path is measured"
    return row.latency.p50_ms


def _full_count(bench: RefineBench) -> int:
    """The last network both ways, the other members, the seed, a scaled network beside each member, and the best of a search."""
    settings = bench.settings
    return 2 + 2 * (len(settings.passing) + 1 if settings.passing else settings.members) + min(settings.search, FINALISTS)


def _say_doubts(bench: RefineBench) -> None:
    asked_ms = bench.settings.delta * bench.seed_latency.p50_ms
    if asked_ms < bench.least_ms:
        share = 100 * bench.delta_ms / bench.seed_latency.p50_ms
        bench.console.say(
            f"delta    {three_digits(asked_ms)} ms is less than twice the ± of two networks timed in turns here: raised to "
            f"{three_digits(bench.delta_ms)} ms, {share:.1f} % of the seed"
        )
    interval, seed_ms = bench.pricing.interval_ms(bench.seed.arch), bench.seed_latency.p50_ms
    if interval and not interval[0] <= seed_ms <= interval[1]:
        low, high = map(three_digits, interval)
        bench.console.say(f"table    it says {low} to {high} ms for the seed: its estimates are scaled to what is measured")
    if bench.seed_latency.problems:
        bench.console.warn(f"the seed's latency is in doubt, and all is told against it: {'; '.join(bench.seed_latency.problems)}")
    if bench.config.table is None:
        bench.console.warn("without --table proposals are sized by MACs, a poor guide to latency on most devices; the path is measured")
