"""Classes of cores: which of a device's cores a plan's ``cores`` means, so that a model never wanders from fast to slow ones."""

from collections.abc import Sequence

from latency.devices.facts import CoreClass
from latency.errors import DeviceError
from latency.plan import TimingPlan

__all__ = ["classes_by_speed", "cpus_for"]

ALIKE = 0.9  # cores with at least that share of the fastest's speed are one class: favoured cores of x86 differ by less


def classes_by_speed(classes: Sequence[CoreClass], allowed: Sequence[int] = ()) -> tuple[tuple[int, ...], ...]:
    """The cores that may be used (none given: all), in classes from the fastest to the slowest: by capacity, else highest frequency.

    >>> little, big = CoreClass(name="A55", cpus=(0, 1), capacity=250), CoreClass(name="A76", cpus=(2, 3), capacity=1024)
    >>> classes_by_speed((big, little)), classes_by_speed((big, little), (1, 2))
    (((2, 3), (0, 1)), ((2,), (1,)))
    """
    found: list[tuple[float, list[int]]] = []
    by_capacity = all(c.capacity for c in classes)
    for each in sorted(classes, key=lambda c: -(c.capacity if by_capacity else c.max_mhz)):
        speed = float(each.capacity if by_capacity else each.max_mhz)
        usable = [cpu for cpu in each.cpus if not allowed or cpu in allowed]
        if found and speed >= ALIKE * found[-1][0]:
            found[-1][1].extend(usable)
        elif usable:
            found.append((speed, usable))
    return tuple(tuple(sorted(cpus)) for _, cpus in found)


def cpus_for(plan: TimingPlan, classes: Sequence[CoreClass], allowed: Sequence[int], *, name: str) -> tuple[int, ...]:
    """The cores to keep the plan's processes on; empty where that is left to the operating system.

    Where all cores are alike, or too few of them say what they are, ``big`` is any of them. Where the fastest class has fewer cores
    than the plan has threads, ``big`` is the fastest class that has enough.

    Raises:
        DeviceError: there is no such class, or it has too few cores.
    """
    if plan.cpus or not plan.cores:
        return plan.cpus
    found = classes_by_speed(classes, allowed)
    if len(found) < 2:
        if plan.cores == "big":
            return ()
        raise DeviceError(f"{name}: its cores are all of one class, so there are none called {plan.cores}: leave cores out")
    if plan.cores == "big":
        return next((cpus for cpus in found if len(cpus) >= plan.threads), ())
    named = {"mid": found[1] if len(found) > 2 else (), "little": found[-1]}[plan.cores]
    shown = ", ".join(f"{len(cpus)}× ({_range(cpus)})" for cpus in found)
    if not named:
        raise DeviceError(f"{name}: its cores are of two classes, big and little, so there are none called mid; fastest first: {shown}")
    if len(named) < plan.threads:
        rule = f"the plan has {plan.threads} threads for {len(named)} {plan.cores} cores"
        raise DeviceError(f"{name}: {rule}; its classes, fastest first: {shown}")
    return named


def _range(cpus: Sequence[int]) -> str:
    return f"{cpus[0]}-{cpus[-1]}" if len(cpus) > 1 and cpus[-1] - cpus[0] == len(cpus) - 1 else ",".join(map(str, cpus))
