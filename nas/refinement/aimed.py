"""A search that aims at the latency that a path ends at, by the run's own sampler: what refining is to be compared with."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from latency import Device, Failed
from latency.console import three_digits
from nas.config import RunConfig
from nas.measuring import Meter, Priced
from nas.proposals import Proposals
from nas.refinement.around import Around, around
from nas.refinement.bench import RefineBench
from nas.refinement.beside import timed_beside
from nas.refinement.longer import Full
from nas.refinement.pricing import Pricing, anchored, paced
from nas.rounds import SearchRounds
from nas.store import Candidate, Latency, RunFolder, read_rows
from search_spaces import SearchSpace, open_space
from search_spaces.architecture import Architecture

__all__ = ["FINALISTS", "SEARCHED", "Aim", "NearAim", "found_best", "open_search"]

WITHIN = 0.05  # of the aim: as near as a latency has to be
FINALISTS = 3  # of a search that are trained in full
PROPOSALS_PER_TRIAL = 50  # most are away from the aim, and cost only an estimate
SEARCHED = "search "  # begins the labels of what was found so


@dataclass(frozen=True, kw_only=True, slots=True)
class Aim:
    """The latency to hit."""

    ms: float

    def excess(self, latency_ms: float) -> float:
        """How much more than ``WITHIN`` a latency is away, relative to the aim: positive is infeasible."""
        return abs(latency_ms / self.ms - 1) - WITHIN


class NearAim:
    """Latencies for such a search (``nas.measuring.Latencies``): an estimate where it is away from the aim, else a measurement.

    Estimates go by the pace of the path, whose networks were all measured; measuring is done beside the seed, as the path's was.
    """

    def __init__(
        self, aim: Aim, path: Sequence[Candidate], pricing: Pricing, meter: Meter, say: Callable[[str], None]
    ) -> None:  # fmt: skip
        """Take the path, its first row the seed's, and what it was priced and measured with."""
        self.device: Device = meter.device
        self._aim, self._seed, self._pricing, self._meter, self._say = aim, path[0], pricing, meter, say
        measured = [r.latency.p50_ms for r in path if r.latency]
        self._estimate = paced(pricing.ms, median(m / g for m, g in zip(measured, pricing.ms([r.arch for r in path]), strict=True)))

    def price(self, archs: Sequence[Architecture], limit_ms: float | None) -> list[Priced | Failed]:
        """Each network's latency; what cannot be estimated is measured; raises as ``timed_beside``."""
        guesses = self._estimate(archs)
        far = {i: ms for i, ms in enumerate(guesses) if math.isfinite(ms) and abs(ms / self._aim.ms - 1) > WITHIN + self._pricing.doubt}
        near = [arch for i, arch in enumerate(archs) if i not in far]
        timed: Iterator[Latency | Failed] = iter(self._timed(near) if near else ())
        return [self._guessed(far[i]) if i in far else _measured(next(timed)) for i in range(len(archs))]

    def look_closer(self, archs: Sequence[Architecture]) -> list[Priced | Failed]:
        """Measures them."""
        return [_measured(timed) for timed in self._timed(archs)]

    def _timed(self, archs: Sequence[Architecture]) -> list[Latency | Failed]:
        return timed_beside(self._seed.arch, self._seed.latency, archs, self._meter, self._say)

    def take_up(self, rows: Sequence[Candidate]) -> None:
        """Nothing: what is estimated goes by the path alone."""

    def _guessed(self, ms: float) -> Priced:
        doubt = self._pricing.doubt
        return Priced(latency=Latency(p50_ms=ms, low_ms=ms * (1 - doubt), high_ms=ms * (1 + doubt)), source="estimate")


def open_search(bench: RefineBench, out: Path, path: Sequence[Candidate], lines: contextlib.ExitStack) -> SearchRounds:
    """A search for the latency of the path's last network, as a source of jobs; taken up where the run has rows of it.

    Each candidate is trained alone for ``config.epochs``, as in nas.search; what is away from the latency is not trained.
    """
    config, settings, say = bench.config, bench.settings, bench.console.say
    last = path[-1].latency
    assert last is not None, "the path is measured"
    aim, space = Aim(ms=last.p50_ms), _space(bench, last.p50_ms)
    aimed = _config(config, aim, settings.search)
    proposals = Proposals(aimed, space.choices(), out / "study.journal", excess=aim.excess)
    tick = lines.enter_context(bench.console.progress(settings.search, "found and trained"))
    where = f"{space.name} x{config.width:g}" if isinstance(space, SearchSpace) else "what can be changed of the seed"
    say(f"search   {settings.search} networks of {where} within {WITHIN:.0%} of {three_digits(aim.ms)} ms, by {config.sampler}, "
        f"each trained for {config.epochs} epochs")  # fmt: skip
    rounds = SearchRounds(
        config=aimed, space=space, head=bench.seed.arch.head if isinstance(space, Around) else bench.task.head,
        folder=RunFolder(path=out, rows=read_rows(out / "candidates.jsonl")), proposals=proposals,
        meter=NearAim(aim, path, bench.pricing, bench.meter, say), excess=aim.excess, proposals_per_trial=PROPOSALS_PER_TRIAL,
        on_row=lambda row: tick(f"valid {row.score or 0.0:.3f}", advance=1) if row.status == "trained" else None,
    )  # fmt: skip
    if rounds.trained:
        tick("from before", advance=rounds.trained, earlier=True)
    return rounds


def found_best(rounds: SearchRounds, say: Callable[[str], None]) -> list[Full]:
    """The search's most accurate networks, to be trained in full, the best first; says how many there were to choose from."""
    trained = [r for r in rounds.rows.values() if r.status == "trained" and r.score is not None]
    asked, tried = rounds.config.trials, len(rounds.rows)
    asked_for = "" if len(trained) >= asked else f", {asked} were asked for"
    best = f"its best {min(FINALISTS, len(trained))} are trained in full" if trained else "the report has none to compare with"
    say(f"the search found {len(trained)} networks near enough in {tried} proposals{asked_for}; {best}")
    ranked = sorted(trained, key=lambda r: (-(r.score or 0.0), r.number))
    return [Full(arch=r.arch, label=f"{SEARCHED}{r.number}") for r in ranked[:FINALISTS]]


def _space(bench: RefineBench, aim_ms: float) -> SearchSpace | Around:
    """The space that the seed comes from, or that of its own places."""
    if bench.settings.search_in:
        return open_space(bench.settings.search_in, width=bench.config.width, input_chw=bench.task.input_chw)
    arch = bench.seed.arch
    return around(arch, bench.settings.kinds, aim_ms, anchored(bench.pricing.ms, arch, bench.seed_latency.p50_ms))


def _config(config: RunConfig, aim: Aim, trials: int) -> RunConfig:
    """The run's configuration as a search for one latency, by TuNAS's absolute reward."""
    return msgspec.structs.replace(
        config, reward="abs", target_ms=aim.ms, w=config.w if config.reward == "abs" else None, max_ms=None, budget_s=None, table=None,
        evaluate="alone", trials=trials,
    )  # fmt: skip


def _measured(timed: Latency | Failed) -> Priced | Failed:
    return timed if isinstance(timed, Failed) else Priced(latency=timed, source="measured")
