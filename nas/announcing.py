"""What is said before the work of a search: the space, the data, the device, the plan and how long it should take."""

from latency.console import duration
from nas.bench import Bench, samples
from nas.budget.planning import show_plan
from nas.finals import finalists, predicted_baselines
from nas.forecast import Speed
from nas.sharing.run_bank import scored, search_seconds
from nas.store import Candidate, RunFolder
from search_spaces.architecture import Architecture

__all__ = ["announce"]

MEASURING_S, STARTING_S = 40.0, 12.0  # the last measurement, and starting workers


def announce(bench: Bench, folder: RunFolder, speed: Speed) -> None:
    """States what will be done and how long it should take, from a speed measured before; with a budget, its plan."""
    config, task, say = bench.config, bench.task, bench.console.say
    for note in task.notes:
        bench.console.warn(note)
    size = bench.space.size()
    done = scored(folder.rows)
    if folder.rows:
        of = "" if "trials" in bench.free else f" of {config.trials}"
        say(f"taking up {bench.out}: {done}{of} candidates are {'trained' if config.evaluate == 'alone' else 'scored'}")
    say(f"space    {bench.space.name} x{config.width:g} at {task.size}: {size.distinct:.3g} networks ({size.raw:.3g} raw picks)")
    say(f"data     {task.data}: {len(task.classes)} classes, {len(task.train):,} training and {len(task.valid):,} validation images")
    say(f"device   {bench.device.info().name}, {config.threads} thread{'s' * (config.threads > 1)}, batch 1")
    if bench.plan:
        show_plan(bench, bench.plan)
    else:
        _say_forecast(bench, folder, speed, max(0, config.trials - done))


def _say_forecast(bench: Bench, folder: RunFolder, speed: Speed, left: int) -> None:
    config, say, archs = bench.config, bench.console.say, samples(bench)
    bank_s, each = search_seconds(config, bench.space, bench.task, archs, speed)
    if config.evaluate == "inherited":
        say(f"plan     train one bank of weights for {config.bank_epochs} epochs (~{duration(bank_s)} from the beginning),")
        say(f"         score {left} candidates with weights from it (~{duration(each)} each, {bench.workers} at a time),")
    else:
        say(f"plan     train {left} candidates for {config.epochs} epochs (~{duration(each)} each, {bench.workers} at a time),")
    say(f"         then up to {config.front_size} of the front, and baselines beside it, for {config.final_epochs} epochs")
    total = bank_s * bool(left) + left * each / bench.workers + _final_seconds(bench, folder, _stand_ins(archs), speed, left) + STARTING_S
    say(f"time     ~{duration(total)} in all; Ctrl-C keeps what is finished")


def _stand_ins(archs: list[Architecture]) -> list[Candidate]:
    from nas.cost import count as cost
    from nas.store import Latency

    return [
        Candidate(stage="search", status="trained", arch=a, seed=0, cost=cost(a), score=float(cost(a).macs),
                  latency=Latency(p50_ms=cost(a).macs / 1e6, low_ms=0.0, high_ms=0.0))
        for a in archs
    ]  # fmt: skip


def _final_seconds(bench: Bench, folder: RunFolder, guessed: list[Candidate], speed: Speed, left: int) -> float:
    """Expected wall time from the end of the search to the end of the run: of full trainings that are not done, by the front itself once
    no candidate is ``left`` to train, by the ``guessed`` one before."""
    members = [r.arch for r in finalists(bench.config, guessed if left else list(folder.rows))]
    done = {r.id for r in folder.rows if r.stage == "final" and r.status == "trained"}
    done |= {i for i, r in bench.reuses.items() if r.epochs == bench.config.final_epochs}
    archs = [a for a in members + predicted_baselines(bench.config, bench.task, members) if a.id not in done]
    times = [speed.seconds(a, len(bench.task.train), bench.config.final_epochs) for a in archs]
    return max(sum(times) / bench.workers, max(times, default=0.0)) + MEASURING_S + STARTING_S
