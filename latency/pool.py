"""Several devices of one model as one device: one measurement at a time on each, and work goes on when one of them is lost.

Only the process that proposes measures, so that leases are locks of this process and of the operating system: Ray has no part in them.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from latency.console import duration
from latency.devices import Device, Model, open_device
from latency.errors import DeviceError, InvalidDevice, Unreachable
from latency.lease import WAIT_S, leased, place_of
from latency.measurement import DeviceInfo, Measurement
from latency.plan import TimingPlan
from search_spaces.errors import NasError

__all__ = ["WAIT_S", "DevicePool"]

POLL_S, RELAXED_S, REMIND_S = 2.0, 30.0, 60.0
LOSSES = 3  # of one measurement, in a row: then it is no cable, and waiting helps no more

Say = Callable[[str], None]


class _Member:
    """One device: not there while ``device`` is None, for the reason ``why``."""

    def __init__(self, spec: str) -> None:
        self.spec, self.why = spec, ""
        self.place = place_of(spec) or spec.partition(",")[0]
        self.device: Device | None = None
        self.is_leased = False
        self.jobs = 0
        self.looked_at = -math.inf

    def open(self, open_one: Callable[[str], Device]) -> Device:
        """Opens the device; ``place`` says from then on which one it is."""
        self.device = open_one(self.spec)
        self.place = place_of(self.spec, self.device) or self.place
        return self.device

    def drop(self, why: str) -> None:
        """Lets go of a device that is gone."""
        device, self.device, self.why = self.device, None, why
        if device is not None:
            with suppress(NasError, OSError):
                device.close()


class DevicePool:
    """A ``Device`` over devices with equal ``DeviceInfo.id``; ``time`` may be called from several threads.

    A call has one device for itself, and others queue. When that is lost, the call begins anew on another one, or waits
    until one is back: a bounded time, and only for the same device as before.
    """

    def __init__(
        self, specs: Sequence[str], *, wait_s: float = WAIT_S, say: Say, open_one: Callable[[str], Device] = open_device,
        poll_s: float = POLL_S,
    ) -> None:  # fmt: skip
        """Opens all devices; one that is not there now is taken in later, unless it is the only one.

        Args:
            specs: their addresses.
            wait_s: how long to wait while none of them is there; 0: not at all.
            say: takes a sentence about what is lost, waited for and back.
            open_one: gives the device at an address.
            poll_s: between two looks for a lost device.

        Raises:
            InvalidDevice: an address is malformed or named twice, or the devices differ.
            DeviceError: none of them is there.
        """
        self._wait_s, self._say, self._open_one, self._poll_s = wait_s, say, open_one, poll_s
        self._changed = threading.Condition()
        self._closed = False
        self._reminded_at = 0.0
        self._members = [_Member(spec) for spec in specs]
        try:
            self._info = self._open_all()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """How many devices there are, the lost ones among them: so many measurements at a time make sense."""
        return len(self._members)

    def info(self) -> DeviceInfo:
        """What each of them is."""
        return self._info

    def time(self, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        """See ``Device.time``: all these models side by side on one of the devices.

        Raises:
            Unreachable: none came back in time, or three in a row were lost over this.
            Busy: another process measured on the device all the while.
            DeviceError: as ``Device.time``.
        """
        losses = 0
        while True:
            member = self._take()
            try:
                member.jobs += 1
                return self._timed(member, models, plan)
            except Unreachable as error:
                losses += 1
                member.drop(str(error))
                self._say(f"{member.place} is lost: {error}")
                if losses == LOSSES:
                    raise Unreachable(f"devices were lost {LOSSES} times in a row over one measurement; the last time: {error}") from error
            finally:
                self._give_back(member)

    def close(self) -> None:
        """Let go of all devices; a call that waits for one ends with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for member in self._members:
            member.drop("closed")

    def _open_all(self) -> DeviceInfo:
        errors: list[DeviceError] = []
        for member in self._members:
            try:
                member.open(self._open_one)
            except DeviceError as error:
                member.why = str(error)
                errors.append(error)
        there = [(m, m.device.info()) for m in self._members if m.device]
        if not there:
            raise errors[0]
        places = [m.place for m in self._members]
        if twice := next((p for p in places if places.count(p) > 1), ""):
            raise InvalidDevice(f"--device names {twice} twice: give each device once")
        (first, info), *others = there
        for other, its in others:
            _require_alike(first.spec, info, other.spec, its)
        for member in self._members:
            if not member.device:
                self._say(f"{member.place} is not there, and is taken in once it is: {member.why}")
        return info

    def _timed(self, member: _Member, models: Sequence[Model], plan: TimingPlan) -> tuple[Measurement, ...]:
        assert member.device is not None, "only devices that are there are taken"
        place = place_of(member.spec, member.device)
        with leased(place, wait_s=max(self._wait_s, 60.0), say=self._say):
            return member.device.time(models, plan)

    def _take(self) -> _Member:
        """A member that is there, for the caller alone; waits for one, and for lost ones to come back."""
        began = time.monotonic()
        while True:
            with self._changed:
                self._require_open()
                free = [m for m in self._members if not m.is_leased]
                if there := [m for m in free if m.device]:
                    member = min(there, key=lambda m: m.jobs)
                    member.is_leased = True
                    return member
                others_work = any(m.is_leased for m in self._members)
                # One that does not answer takes long to say so; meanwhile another may be done with its work.
                due = [m for m in free if not others_work or time.monotonic() - m.looked_at >= RELAXED_S]
                for member in due:
                    member.is_leased = True
            if back := self._look_for(due):
                return self._still_wanted(back)
            self._require_open()
            waited_s = time.monotonic() - began
            if not others_work:
                if waited_s >= self._wait_s:
                    raise Unreachable(self._not_back())
                self._remind(free, self._wait_s - waited_s)
            with self._changed:
                self._changed.wait(self._poll_s)

    def _still_wanted(self, back: _Member) -> _Member:
        """The leased member, unless the pool was closed while it was opened."""
        try:
            self._require_open()
        except DeviceError:
            back.drop("closed")
            self._give_back(back)
            raise
        return back

    def _require_open(self) -> None:
        if self._closed:
            raise DeviceError("the device pool is closed: open it again")

    def _look_for(self, lost: Sequence[_Member]) -> _Member | None:
        """The first of the lost members, all leased by the caller, that is back; the others are given back."""
        back: _Member | None = None
        try:
            for member in lost:
                if back is None and not self._closed and self._is_back(member):
                    back = member
        finally:
            for member in lost:
                if member is not back:
                    self._give_back(member)
        return back

    def _is_back(self, member: _Member) -> bool:
        member.looked_at = time.monotonic()
        try:
            found = member.open(self._open_one).info()
        except NasError as error:
            member.why = str(error)
            return False
        if found.id != self._info.id:
            member.drop(f"what answers at {member.place} is another device, {_described(found)}: give back {_described(self._info)}")
            return False
        self._say(f"{member.place} is there, and measuring goes on")
        self._reminded_at = 0.0
        return True

    def _give_back(self, member: _Member) -> None:
        with self._changed:
            member.is_leased = False
            self._changed.notify_all()

    def _remind(self, lost: Sequence[_Member], left_s: float) -> None:
        now = time.monotonic()
        if not self._reminded_at or now - self._reminded_at >= REMIND_S:
            self._reminded_at = now
            names, what = " or ".join(m.place for m in lost), "; ".join(m.why for m in lost)
            self._say(f"waiting for {names}, at most {duration(left_s)} more: {what}")

    def _not_back(self) -> str:
        why = "; ".join(m.why for m in self._members)
        return why if not self._wait_s else f"no device came back within {duration(self._wait_s)}: {why}"


def _require_alike(spec: str, info: DeviceInfo, other_spec: str, other: DeviceInfo) -> None:
    if info.id != other.id:
        raise InvalidDevice(
            f"--device {spec} is {_described(info)} and {other_spec} is {_described(other)}: latencies of different devices make no "
            "front; name devices of one model and build, or search on each by itself"
        )


def _described(info: DeviceInfo) -> str:
    return f"{info.name}, {info.os}, {info.runtime}"
