import msgspec
import pytest

from latency.errors import InvalidPlan
from latency.plan import PLANS, PUBLISH, QUICK, TABLE, Provider, TimingPlan, plan_named
from search_spaces.errors import UnknownName


@pytest.mark.parametrize("plan", PLANS.values())
def test_plan_survives_json(plan: TimingPlan) -> None:
    assert msgspec.json.decode(msgspec.json.encode(plan), type=TimingPlan) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", 0), ("min_rounds", 0), ("warmup_ms", -1.0), ("half_width", 0.0), ("half_width", 1.0), ("max_ms", 1.0),
        ("max_samples", 1), ("processes", 0), ("more_processes", -1),
        ("settle_s", -1.0), ("cpus", (0, 0)), ("cpus", (-1,)), ("block_ms", 0.0),
    ],
)  # fmt: skip
def test_plan_refuses_a_value_and_names_its_field(field: str, value: object) -> None:
    with pytest.raises(InvalidPlan, match=rf"timing plan: {field} "):
        msgspec.structs.replace(QUICK, **{field: value})


@pytest.mark.parametrize(
    ("threads", "provider", "alone"), [(1, "cpu", True), (2, "cpu", False), (1, "nnapi", False), (1, "xnnpack", False)]
)
def test_cpu_time_tells_something_of_one_thread_on_the_cpu_provider_alone(threads: int, provider: Provider, alone: bool) -> None:
    assert plan_named("quick", threads=threads, provider=provider).caller_works_alone is alone


def test_plan_refuses_a_misspelt_field_in_a_file() -> None:
    with pytest.raises(msgspec.ValidationError, match="thread"):
        msgspec.json.decode(b'{"thread": 2}', type=TimingPlan)


def test_publish_is_no_less_than_the_protocol_asks_for() -> None:
    # facts on measuring, section 6: processes, warm-up, samples, time and width that a reported figure needs.
    assert PUBLISH.processes >= 3
    assert PUBLISH.warmup_runs >= 10
    assert PUBLISH.warmup_ms >= 500
    assert PUBLISH.min_rounds >= 30
    assert PUBLISH.min_ms >= 300
    assert PUBLISH.half_width <= 0.01
    assert PUBLISH.anchor
    assert (PUBLISH.processes + PUBLISH.more_processes) * PUBLISH.max_ms <= 60_000


def test_table_takes_a_piece_at_most_four_tenths_of_a_second() -> None:
    assert TABLE.processes == 3
    # By hand: three times 5 × 10 ms of warm-up and 80 ms of runs.
    assert TABLE.longest_ms == 390


def test_quick_is_one_process() -> None:
    assert (QUICK.processes, QUICK.more_processes) == (1, 0)
    assert QUICK.longest_ms <= 1000


def test_a_plan_is_found_by_its_name_and_changed() -> None:
    assert plan_named("table", threads=4) == msgspec.structs.replace(TABLE, threads=4)


def test_a_misspelt_plan_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="publish"):
        plan_named("publsh")
