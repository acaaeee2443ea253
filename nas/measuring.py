"""Where a search's latencies come from: a table, what earlier runs measured, else the device; and how long that took."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, Protocol

import msgspec

from latency import QUICK, Device, Failed, Measurement, TimingPlan
from latency.console import duration
from latency.devices.base import Model, model_bytes, sha256, time_each
from latency.onnx_graph import emit
from latency.pool import DevicePool
from latency.store import LatencyStore, variation
from nas.pace import Pace
from nas.screening import Estimate, Estimates, estimated, is_clear_of
from nas.store import Candidate, Latency
from search_spaces.architecture import Architecture

__all__ = ["Latencies", "Meter", "Priced", "Timed"]

PLAN_NAME, PROCESSES = "quick", 3


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """A model's latency; ``is_stored``: an earlier run measured it."""

    measurement: Measurement
    is_stored: bool = False


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """A network's latency as a row keeps it, and where it comes from."""

    latency: Latency
    source: Literal["measured", "store", "estimate"]


class Latencies(Protocol):
    """Where a search's latencies come from, such as a ``Meter``."""

    device: Device

    def price(self, archs: Sequence[Architecture], limit_ms: float | None) -> list[Priced | Failed]:
        """Each network's latency; an error for one that the device cannot run."""
        ...

    def look_closer(self, archs: Sequence[Architecture]) -> list[Priced | Failed]:
        """Times networks that were only estimated before."""
        ...

    def take_up(self, rows: Sequence[Candidate]) -> None:
        """Learns from an interrupted search's rows what it knew."""
        ...


class Meter:
    """Times networks for one search. What it took and where the rest came from is counted for the story.

    ``spent_s`` is wall time on the device for ``measured`` networks; ``stored`` networks were measured by earlier runs on
    ``stored_days``; ``estimated`` ones were not measured at all.
    """

    def __init__(
        self, device: Device, plan: TimingPlan = QUICK, *, store: LatencyStore | None = None, is_fresh: bool = False,
        table: Estimates | None = None,
    ) -> None:  # fmt: skip
        """Take a device, which stays its owner's.

        Args:
            device: a pool of several times several networks at once.
            plan: of every measurement.
            store: of earlier measurements; new ones are added to it.
            is_fresh: leave what is in the store unread.
            table: of this device and plan, to estimate where measuring is not worth its time.
        """
        self.device, self.plan = device, plan
        self._store, self._is_fresh, self._table = store, is_fresh, table
        self.measured = self.stored = self.estimated = self._measured_before = 0
        self.spent_s = 0.0
        self.stored_days: set[str] = set()
        self._between_cv = self._stored_spread()
        self._pace = Pace()

    def anew(self) -> "Meter":
        """Another one of the same device, plan, store and table, that has counted nothing; the learned spread goes along."""
        fresh = Meter(self.device, self.plan, store=self._store, is_fresh=self._is_fresh, table=self._table)
        fresh._between_cv = self._between_cv
        return fresh

    def price(self, archs: Sequence[Architecture], limit_ms: float | None) -> list[Priced | Failed]:
        """Each network's latency: from the table, where it knows the network and its 90 % interval is clear of the limit, else timed.

        Raises:
            DeviceError: as ``time``.
        """
        table = self._table
        known = [i for i, arch in enumerate(archs) if not table.missing([arch])] if table else []
        raw = dict(zip(known, table.estimate_many([archs[i] for i in known]), strict=True)) if table else {}
        guesses = {i: self._pace.applied(guess) for i, guess in raw.items()}
        paced = list(raw)[: self._pace.lacking]
        clear = [i for i, guess in guesses.items() if i not in paced and is_clear_of(guess, limit_ms)]
        self.estimated += len(clear)
        timed = map(_priced, self.time([emit(arch) for i, arch in enumerate(archs) if i not in clear]))
        found = [Priced(latency=estimated(guesses[i]), source="estimate") if i in clear else next(timed) for i in range(len(archs))]
        self._learn([(found[i], raw[i]) for i in paced])
        return found

    def look_closer(self, archs: Sequence[Architecture]) -> list[Priced | Failed]:
        """Times networks that were only estimated before; raises as ``time``."""
        self.estimated -= len(archs)
        return [_priced(timed) for timed in self.time([emit(arch) for arch in archs])]

    def take_up(self, rows: Sequence[Candidate]) -> None:
        """Learns from an interrupted search's rows what it knew, and counts it for the story."""
        table, firsts = self._table, [(r, r.latency) for r in rows if r.duplicate_of is None and r.latency is not None]
        measured = [(r.arch, Priced(latency=latency, source="measured")) for r, latency in firsts if r.latency_source == "measured"]
        old = [latency.taken_at[:10] for r, latency in firsts if r.latency_source == "store"]
        self._measured_before += len(measured)
        self.estimated += sum(r.latency_source == "estimate" for r, _ in firsts)
        self.stored += len(old)
        self.stored_days |= set(old) - {""}
        if table:
            known = [(arch, priced) for arch, priced in measured if not table.missing([arch])]
            self._learn(list(zip([p for _, p in known], table.estimate_many([arch for arch, _ in known]), strict=True)))

    def _learn(self, found: Sequence[tuple[Priced | Failed, Estimate]]) -> None:
        for priced, guess in found:
            if isinstance(priced, Priced) and priced.source == "measured":
                self._pace.learn(priced.latency.p50_ms, guess.ms)

    def time(self, models: Sequence[Model], *, together: bool = False) -> list[Timed | Failed]:
        """Each model's latency; an error for one that the device cannot run.

        ``together``: all of them now, in turns on one device also where there are several, to be held against each other.

        Raises:
            DeviceError: the device itself fails, or is gone.
        """
        data = model_bytes(models)
        names = [sha256(d) for d in data]
        known = {} if together else self._known(names)
        new = {name: d for name, d in zip(names, data, strict=True) if name not in known}
        taken = dict(zip(new, self._measured(list(new.values()), together=together), strict=True))
        return [self._widened(Timed(measurement=known[n], is_stored=True) if n in known else taken[n]) for n in names]

    def learn_spread(self, models: Sequence[Model]) -> None:
        """Times a few networks in three processes each where no earlier run tells how far processes differ on this device.

        From then on the intervals of all latencies are as wide as that asks for: each is of one process.
        """
        if self._between_cv is None and self.device.info().kind != "fake":
            goes = [self._measured(model_bytes(models), counts=False) for _ in range(PROCESSES)]
            figures = [[t.measurement.p50_ms for t in of_one if isinstance(t, Timed)] for of_one in zip(*goes, strict=True)]
            self._between_cv = variation(figures)

    def wall_s(self, models: Sequence[Model]) -> float:
        """Wall seconds that measuring one of these takes, found by measuring them; nothing is kept of it. Raises as ``time``."""
        began = time.monotonic()
        _apart(self.device, model_bytes(models), self.plan)
        return (time.monotonic() - began) / len(models)

    def story(self) -> str:
        """What was measured and what not, in a sentence; "" where there is nothing to say."""
        parts = []
        if self.measured:
            parts.append(f"{self.measured} network{'s' * (self.measured > 1)} measured in {duration(self.spent_s)}")
        if self._measured_before:
            parts.append(f"{self._measured_before} measured before this start")
        if self.stored:
            days = sorted(self.stored_days) or ["an unknown day"]
            when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
            parts.append(f"{self.stored} taken from earlier runs ({when}; --fresh measures them again)")
        if self.estimated > 0:
            saved = f": about {duration(self.estimated * self.spent_s / self.measured)} saved" if self.measured else ""
            parts.append(f"{self.estimated} only estimated by the table{saved}")
        if pace := self._pace.story():
            parts.append(pace)
        return ", ".join(parts)

    def _stored_spread(self) -> float | None:
        if self._store is None:
            return None
        return self._store.known_spread(self.device.info().id)

    def _widened(self, timed: Timed | Failed) -> Timed | Failed:
        if isinstance(timed, Failed) or self._between_cv is None:
            return timed
        measurement = msgspec.structs.replace(timed.measurement, between_cv=self._between_cv)
        return Timed(measurement=measurement, is_stored=timed.is_stored)

    def _known(self, names: Sequence[str]) -> dict[str, Measurement]:
        if self._store is None or self._is_fresh:
            return {}
        found = self._store.find(names, self.device.info(), self.plan)
        self.stored += len(found)
        self.stored_days |= {m.taken_at[:10] for m in found.values()}
        return found

    def _measured(self, models: Sequence[bytes], *, counts: bool = True, together: bool = False) -> list[Timed | Failed]:
        began = time.monotonic()
        found = (time_each if together else _apart)(self.device, models, self.plan)
        if counts:
            self.spent_s += time.monotonic() - began
            self.measured += len(models)
        if self._store is not None:
            self._store.keep([m for m in found if isinstance(m, Measurement)], PLAN_NAME)
        return [m if isinstance(m, Failed) else Timed(measurement=m) for m in found]


def _priced(timed: Timed | Failed) -> Priced | Failed:
    if isinstance(timed, Failed):
        return timed
    return Priced(latency=Latency.of(timed.measurement), source="store" if timed.is_stored else "measured")


def _apart(device: Device, models: Sequence[Model], plan: TimingPlan) -> list[Measurement | Failed]:
    """As ``time_each``; a pool's devices share the models out among them, each interleaving its own."""
    if not isinstance(device, DevicePool) or min(device.size, len(models)) < 2:
        return time_each(device, models, plan)
    lanes = min(device.size, len(models))
    calls = [partial(time_each, device, models[i::lanes], plan) for i in range(lanes)]
    with ThreadPoolExecutor(lanes) as threads:
        futures = [threads.submit(call) for call in calls]
        try:
            done = [future.result() for future in futures]
        except BaseException:
            device.close()  # the others may be waiting for a lost device, which nobody needs any more
            raise
    return [done[i % lanes][i // lanes] for i in range(len(models))]
