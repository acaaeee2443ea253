"""Timing named models on devices: in groups that take turns, with outputs checked, and failures kept beside what was measured."""

from collections.abc import Mapping, Sequence

import msgspec

from latency.compare import Comparison, compare
from latency.console import Tick
from latency.devices.base import Device
from latency.errors import DeviceError, Failed
from latency.measurement import Measurement
from latency.model_files import NamedModel
from latency.parity import Parity, check_outputs
from latency.plan import TimingPlan
from latency.store import LatencyStore

__all__ = ["SESSIONS", "Result", "compared", "keep", "longest_s", "profile", "widened"]

GROUP = 16  # models that take turns: all of them are in memory at once
BAD = {"different": "the outputs are not those of this computer", "failed": "the outputs could not be checked"}
SESSIONS = 3  # of a comparison: one session's lay-out of memory can favour either model


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one device: a measurement for each session, or the error instead; ``is_stored``: it was taken in an earlier run."""

    model: NamedModel
    device: str
    sessions: tuple[Measurement, ...] = ()
    parity: Parity | None = None
    error: str = ""
    is_stored: bool = False

    @property
    def measurement(self) -> Measurement | None:
        """All sessions' processes as one measurement."""
        if not self.sessions:
            return None
        first, every = self.sessions[0], [p for m in self.sessions for p in m.split()]
        return msgspec.structs.replace(
            first,
            samples_ns=tuple(r for m in every for r in m.samples_ns),
            cpu_ns=tuple(r for m in every for r in m.cpu_ns),
            anchor_ns=tuple(r for m in every for r in m.anchor_ns),
            mhz=tuple(r for m in every for r in m.mhz),
            process_rounds=tuple(len(m.samples_ns) for m in every) if len(every) > 1 else (),
            stopped=tuple(stop for m in every for stop in m.stopped),
            notes=tuple(dict.fromkeys(note for m in self.sessions for note in m.notes)),
            warmup_ns=sum(m.warmup_ns for m in self.sessions),
        )

    def problems(self) -> tuple[str, ...]:
        """Reasons not to trust the figure, a sentence each."""
        if self.measurement is None:
            return (self.error,)
        found = [f"{BAD[self.parity.status]}: {self.parity.text}"] if self.parity and self.has_wrong_outputs else []
        return (*found, *self.measurement.problems())

    @property
    def has_wrong_outputs(self) -> bool:
        """Whether the outputs were held against this computer's and are others, or could not be."""
        return self.parity is not None and self.parity.status in BAD


def profile(
    models: Sequence[NamedModel], devices: Mapping[str, Device], plan: TimingPlan, *, sessions: int = 1, tick: Tick | None = None,
    stored: Mapping[str, Mapping[str, Measurement]] | None = None,
) -> list[Result]:  # fmt: skip
    """A result for each model on each device, devices one after the other; ``tick`` is called with every finished group.

    A model that a device cannot run, and a device that is lost, become results with an error: the rest is measured. What is
    ``stored`` (by the device's address, then the model's SHA-256) is not measured again.
    """
    found: list[Result] = []
    for spec, device in devices.items():
        lost, known = "", (stored or {}).get(spec, {})
        found += [Result(model=m, device=spec, sessions=(known[m.sha256],), is_stored=True) for m in models if m.sha256 in known]
        if tick and (old := sum(m.sha256 in known for m in models)):
            tick(f"{old} on {spec} taken before", advance=old, earlier=True)
        for group in _groups([m for m in models if m.sha256 not in known]):
            try:
                results = [] if lost else _group(group, spec, device, plan, sessions)
            except DeviceError as error:
                results, lost = [], str(error)
            found += results or [Result(model=m, device=spec, error=lost) for m in group]
            if tick:
                tick(f"{group[-1].name} on {spec}", advance=len(group))
    order = {(spec, m.name): i for i, (spec, m) in enumerate((spec, m) for spec in devices for m in models)}
    return sorted(found, key=lambda r: order[r.device, r.model.name])


def keep(results: Sequence[Result], store: LatencyStore, plan_name: str) -> None:
    """Stores what was measured, but for models whose outputs are wrong; see ``LatencyStore.keep``."""
    store.keep([m for r in results if not (r.is_stored or r.has_wrong_outputs) for m in r.sessions], plan_name)


def widened(results: Sequence[Result], store: LatencyStore) -> list[Result]:
    """The results, those of a single process with the spread between processes that the store knows for their device.

    It is that under publish, else table, else the plan quick itself: measured again, a model is in another process.
    """
    return [
        msgspec.structs.replace(r, sessions=(_widened(r.sessions[0], store),))
        if len(r.sessions) == 1 and r.sessions[0].process_cv is None
        else r
        for r in results
    ]


def _widened(taken: Measurement, store: LatencyStore) -> Measurement:
    return msgspec.structs.replace(taken, between_cv=store.known_spread(taken.device.id) or 0.0)


def compared(results: Sequence[Result]) -> dict[str, Comparison]:
    """For each device that measured both of two models, which is faster."""
    pairs: dict[str, list[Result]] = {}
    for result in results:
        pairs.setdefault(result.device, []).append(result)
    found = {}
    for device, (a, b) in pairs.items():
        # One model may have needed more processes than the other: those have no pair.
        sessions = list(zip(*([p for m in r.sessions for p in m.split()] for r in (a, b)), strict=False))
        if sessions:
            found[device] = compare(a.model.name, b.model.name, [x for x, _ in sessions], [y for _, y in sessions])
    return found


def longest_s(models: int, devices: int, plan: TimingPlan, sessions: int) -> float:
    """An upper estimate of the timing, without loading: what the plan allows each model."""
    return models * devices * sessions * plan.longest_ms / 1000


def _groups(models: Sequence[NamedModel]) -> list[Sequence[NamedModel]]:
    return [models[i : i + GROUP] for i in range(0, len(models), GROUP)]


def _group(models: Sequence[NamedModel], spec: str, device: Device, plan: TimingPlan, sessions: int) -> list[Result]:
    """Times the models in turns, ``sessions`` times, and checks the outputs of those that ran."""
    taken: dict[str, list[Measurement]] = {m.name: [] for m in models}
    errors: dict[str, str] = {}
    for i in range(sessions):
        able = [m for m in models if m.name not in errors]
        # Every other session in reverse: neither model always comes after the other.
        for model, outcome in _session(able[:: -1 if i % 2 else 1], device, plan):
            if isinstance(outcome, Failed):
                errors[model.name] = _reason(outcome, model)
            else:
                taken[model.name].append(outcome)
    return [
        Result(model=m, device=spec, error=errors[m.name])
        if m.name in errors
        else Result(model=m, device=spec, sessions=tuple(taken[m.name]), parity=check_outputs(device, m, plan))
        for m in models
    ]


def _session(models: Sequence[NamedModel], device: Device, plan: TimingPlan) -> list[tuple[NamedModel, Measurement | Failed]]:
    """Each model's measurement, all in one go; one that the device cannot run is left out of it, and the others begin again."""
    left, failed = list(models), list[tuple[NamedModel, Measurement | Failed]]()
    while left:
        try:
            return [*failed, *zip(left, device.time([m.model for m in left], plan), strict=True)]
        except Failed as error:
            if error.model_index is None:
                raise
            failed.append((left.pop(error.model_index), error))
    return failed


def _reason(error: Failed, model: NamedModel) -> str:
    """The error's text, with the model's name in place of its number."""
    text = str(error).replace(f"model {error.model_index}", model.name)
    return text if model.name in text else f"{model.name}: {text}"
