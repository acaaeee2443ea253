from collections.abc import Mapping, Sequence

import msgspec
import pytest

from latency import DeviceInfo, TimingPlan
from latency.processes import Part, combined, in_processes

INFO = DeviceInfo(kind="test", cpu="none", cores=1, machine="none", os="none", runtime="none")
PLAN = TimingPlan(processes=3, more_processes=2)


def part(ns: int = 100, **fields: object) -> Part:
    made = Part(samples_ns=((ns,) * 2,) * 3, cpu_ns=(), stopped="converged", warmup_ns=5, load_ns=7, first_run_ns=9)
    return msgspec.structs.replace(made, **fields)


def ran(models: int, times: Mapping[int, Sequence[int]], plan: TimingPlan = PLAN) -> tuple[list[list[Part]], list[list[int]]]:
    """The parts and the orders asked for, where each model takes its ``times`` by process."""
    orders: list[list[int]] = []

    def run(order: list[int]) -> list[Part]:
        orders.append(order)
        return [part(times[i][len(orders) - 1]) for i in order]

    return in_processes(models, plan, run), orders


def test_every_process_runs_all_models_in_another_order() -> None:
    _, orders = ran(6, {i: [100] * 5 for i in range(6)})
    assert [sorted(order) for order in orders] == [list(range(6))] * 3
    assert orders[0] == list(range(6))
    assert len({tuple(order) for order in orders}) == 3


def test_orders_are_the_same_every_time() -> None:
    times = {i: [100] * 5 for i in range(6)}
    assert ran(6, times)[1] == ran(6, times)[1]


def test_a_model_whose_processes_differ_gets_more_of_them_and_the_others_do_not() -> None:
    # 100, 100, 110: a standard deviation of 5.8 around 103.
    parts, orders = ran(2, {0: [100] * 5, 1: [100, 100, 110, 100, 110]})
    assert [len(each) for each in parts] == [3, 5]
    assert orders[3:] == [[1], [1]]


def test_more_processes_end_where_they_agree() -> None:
    # With a fourth process of 100 the standard deviation of 100, 100, 105.5, 100 is 2.7 % of the mean.
    parts, _ = ran(1, {0: [1000, 1000, 1055, 1000, 1000]})
    assert len(parts[0]) == 4


def test_no_process_follows_one_that_was_throttled() -> None:
    parts = in_processes(1, PLAN, lambda order: [part(stopped="throttled") for _ in order])
    assert len(parts[0]) == 1


def test_parts_are_put_together_process_by_process() -> None:
    parts = [part(100, anchor_ns=(1, 2, 3), mhz=(9, 9, 9), anchor_reference_ns=4), part(200, anchor_ns=(4, 5, 6), mhz=(8, 8, 8))]
    taken = combined(parts, plan=PLAN, device=INFO, model_sha256="", cpus=(1,), notes=["hot"])
    assert taken.samples_ns == ((100, 100),) * 3 + ((200, 200),) * 3
    assert (taken.process_rounds, taken.stopped) == ((3, 3), ("converged", "converged"))
    assert (taken.anchor_ns, taken.mhz, taken.anchor_reference_ns) == ((1, 2, 3, 4, 5, 6), (9, 9, 9, 8, 8, 8), 4)
    assert (taken.warmup_ns, taken.load_ns, taken.first_run_ns) == (10, 7, 9)
    assert (taken.cpus, taken.notes) == ((1,), ("hot",))


def test_parts_without_anchor_or_frequency_give_none() -> None:
    taken = combined([part(mhz=(9, 9, 9)), part()], plan=PLAN, device=INFO, model_sha256="")
    assert (taken.anchor_ns, taken.mhz) == ((), ())


def test_one_process_needs_no_list_of_rounds() -> None:
    taken = combined([part()], plan=PLAN, device=INFO, model_sha256="")
    assert taken.process_rounds == ()
    assert taken.p50_ms == pytest.approx(100e-6)
