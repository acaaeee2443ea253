import msgspec
import pytest

from latency.errors import InvalidPlan
from latency.plan import FINAL, QUICK, TimingPlan


@pytest.mark.parametrize("plan", [QUICK, FINAL])
def test_plan_survives_json(plan: TimingPlan) -> None:
    assert msgspec.json.decode(msgspec.json.encode(plan), type=TimingPlan) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threads", 0), ("min_rounds", 0), ("warmup_ms", -1.0), ("half_width", 0.0), ("half_width", 1.0), ("max_ms", 1.0),
        ("max_samples", 1), ("cpus", (0, 0)), ("cpus", (-1,)), ("block_ms", 0.0),
    ],
)  # fmt: skip
def test_plan_refuses_a_value_and_names_its_field(field: str, value: object) -> None:
    with pytest.raises(InvalidPlan, match=rf"timing plan: {field} "):
        msgspec.structs.replace(QUICK, **{field: value})


def test_plan_refuses_a_misspelt_field_in_a_file() -> None:
    with pytest.raises(msgspec.ValidationError, match="thread"):
        msgspec.json.decode(b'{"thread": 2}', type=TimingPlan)


def test_final_asks_for_more_than_quick() -> None:
    assert FINAL.half_width < QUICK.half_width
    assert FINAL.min_ms > QUICK.min_ms
