"""Reasons to doubt a measurement: one function each, which gives a sentence with cause, figures and way out, or ""."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from latency.measurement import Measurement

__all__ = ["UNSTABLE", "of"]

CONTENDED, SLOWED = 0.2, 0.2  # shares of runs, and of rounds, that make a warning
DRIFT, ORDERED = 0.05, 0.85  # change between the halves, and share of (early, late) pairs of rounds that show it: else it is noise
UNSTABLE = 0.03  # coefficient of variation between processes


def of(m: "Measurement", *, beside_another: bool = False) -> tuple[str, ...]:
    """All reasons to doubt a measurement, the gravest kind first; ``beside_another``: only those that also spoil its ratio to a model
    that was timed in turns with it, which a device of changing speed does not."""
    of_speed = () if beside_another else (_contended(m), _unsettled(m), _unstable(m), _slowed(m), _drift(m))
    found = (_crowded(m), _throttled(m), _too_few(m), *of_speed, _coarse(m))
    return (*(note for note in m.notes if note), *(problem for problem in found if problem))


def _crowded(m: "Measurement") -> str:
    cores = len(m.cpus) or m.device.cores
    if not 0 < cores < m.plan.threads:
        return ""
    return f"the plan has {m.plan.threads} threads for {cores} core{'s' * (cores > 1)}, and they wait for each other: use at most {cores}"


def _throttled(m: "Measurement") -> str:
    if "throttled" not in m.stopped:
        return ""
    return "throttled: the device became slower than at its start and stayed so after it was left to cool; measure again when it is cool"


def _too_few(m: "Measurement") -> str:
    sizes = [(len(p.samples_ns), p.runs) for p in m.split()]
    rounds, runs = min(sizes)
    if rounds >= m.plan.min_rounds and runs >= m.plan.min_samples:
        return ""
    where = f" of process {sizes.index((rounds, runs)) + 1}" if len(sizes) > 1 else ""
    wanted = f"the plan wants {m.plan.min_samples} in {m.plan.min_rounds}: measure with --plan publish, or a smaller model"
    return f"only {runs} runs in {rounds} rounds{where} fitted into {m.plan.max_ms:g} ms, and {wanted}"


def _contended(m: "Measurement") -> str:
    share, by_cpu, processes = m.rejected_share, m.cpu_time_processes, len(m.process_p50_ms)
    if share <= CONTENDED:
        return ""
    if not by_cpu:
        return f"{share:.0%} of the runs were preempted and left out: stop other work on the device"
    what = "this is" if by_cpu == processes else f"{by_cpu} of its {processes} processes {'counts' if by_cpu == 1 else 'count'} by"
    return f"{share:.0%} of the runs were preempted, so {what} CPU time and not wall time: stop other work on the device"


def _unsettled(m: "Measurement") -> str:
    half = m.half_width
    if half <= m.plan.half_width:
        return ""
    what = "the median of a process" if len(m.process_p50_ms) > 1 else "the median"
    wanted = f"the plan wants ±{m.plan.half_width:.1%}"
    return f"{what} is known to ±{half:.1%} only, and {wanted}: measure longer or on a quieter device"


def _unstable(m: "Measurement") -> str:
    spread = m.process_cv
    if spread is None or spread <= UNSTABLE:
        return ""
    low, high = min(m.process_p50_ms), max(m.process_p50_ms)
    return f"unstable: the medians of {len(m.process_p50_ms)} processes lie between {low:.3g} and {high:.3g} ms and vary by {spread:.1%}"


def _slowed(m: "Measurement") -> str:
    if m.slowed_share <= SLOWED:
        return ""
    seen = [mhz for mhz in m.mhz if mhz]
    slow = f"{m.slowed_share:.0%} of the rounds ran at less than 90 % of the usual"
    return f"the core's frequency fell from {max(seen)} to {min(seen)} MHz, and {slow}: let it cool"


def _drift(m: "Measurement") -> str:
    for medians in m.round_medians_ns():
        if len(medians) < 4:
            continue
        early, late = np.array_split(np.array(medians), 2)
        change = float(np.median(late) / np.median(early) - 1)
        in_order = float(np.mean(np.sign(late[:, None] - early) == np.sign(change)))
        if abs(change) > DRIFT and in_order >= ORDERED:
            return f"the second half of the rounds is {change:+.1%} off the first: heat, frequency or other work"
    return ""


def _coarse(m: "Measurement") -> str:
    timer_ns = m.device.timer_ns
    if m.p50_ms * 1e6 >= 100 * timer_ns:
        return ""
    return f"the device's clock counts in steps of {timer_ns} ns, more than 1 % of this latency"
