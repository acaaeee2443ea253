import msgspec
import pytest

from latency import DeviceError, TimingPlan
from latency.cores import classes_by_speed, cpus_for
from latency.devices.facts import CoreClass

PRIME = CoreClass(name="Cortex-X1", cpus=(7,), capacity=1024, max_mhz=2840)
MID = CoreClass(name="Cortex-A78", cpus=(4, 5, 6), capacity=800, max_mhz=2400)
LITTLE = CoreClass(name="Cortex-A55", cpus=(0, 1, 2, 3), capacity=250, max_mhz=1800)
PHONE, ALL = (PRIME, MID, LITTLE), tuple(range(8))


def cpus(plan: TimingPlan, classes: tuple[CoreClass, ...] = PHONE, allowed: tuple[int, ...] = ALL) -> tuple[int, ...]:
    return cpus_for(plan, classes, allowed, name="phone")


@pytest.mark.parametrize(("cores", "expected"), [("", ()), ("big", (7,)), ("mid", (4, 5, 6)), ("little", (0, 1, 2, 3))])
def test_names_stand_for_classes_by_speed(cores: str, expected: tuple[int, ...]) -> None:
    assert cpus(msgspec.structs.replace(TimingPlan(), cores=cores)) == expected


def test_big_is_the_fastest_class_with_a_core_for_every_thread() -> None:
    assert cpus(TimingPlan(cores="big", threads=3)) == (4, 5, 6)
    assert cpus(TimingPlan(cores="big", threads=4)) == (0, 1, 2, 3)
    assert cpus(TimingPlan(cores="big", threads=5)) == ()


def test_cores_that_are_not_allowed_are_left_out() -> None:
    assert cpus(TimingPlan(cores="big"), allowed=(0, 1, 4, 5)) == (4, 5)


def test_cpus_by_number_go_before_a_class() -> None:
    assert cpus(TimingPlan(cores="little", cpus=(7,))) == (7,)


def test_equal_cores_are_any_for_big_and_refused_for_the_rest() -> None:
    assert cpus(TimingPlan(cores="big"), (LITTLE,)) == ()
    with pytest.raises(DeviceError, match="its cores are all of one class, so there are none called little"):
        cpus(TimingPlan(cores="little"), (LITTLE,))


def test_two_classes_have_no_mid() -> None:
    with pytest.raises(DeviceError, match=r"none called mid; fastest first: 1× \(7\), 4× \(0-3\)"):
        cpus(TimingPlan(cores="mid"), (PRIME, LITTLE))


def test_more_threads_than_cores_of_the_class_are_refused() -> None:
    with pytest.raises(DeviceError, match="the plan has 4 threads for 3 mid cores"):
        cpus(TimingPlan(cores="mid", threads=4))


def test_favoured_cores_of_one_kind_are_one_class_with_the_rest() -> None:
    favoured, rest = CoreClass(name="Acme 9", cpus=(2,), max_mhz=5100), CoreClass(name="Acme 9", cpus=(0, 1), max_mhz=4800)
    assert classes_by_speed((favoured, rest)) == ((0, 1, 2),)
