import math
from typing import Any

import msgspec
import pytest

from nas.errors import InvalidConfig
from nas.recipe import BankPlan, Recipe

BAD = {
    "epochs": 0, "batch": 1, "lr": 0.0, "momentum": 1.0, "weight_decay": -1e-4, "warmup_epochs": 3.0, "label_smoothing": 1.0,
    "ema_decay": 1.0, "crop_pixels": -1, "cutout_pixels": -1, "dropout": 1.0, "clip_norm": -1.0,
}  # fmt: skip


@pytest.mark.parametrize("field", sorted(BAD))
def test_value_outside_its_range_is_named(field: str) -> None:
    with pytest.raises(InvalidConfig, match=f"recipe: {field} must be .*, got {BAD[field]}"):
        msgspec.structs.replace(Recipe(), **{field: BAD[field]})


def test_rate_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="lr must be above 0 and finite"):
        Recipe(lr=math.nan)


def test_typo_in_a_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `epoch`"):
        msgspec.convert({"epoch": 3}, Recipe)


@pytest.mark.parametrize("flip", [True, False, "auto"])
def test_recipe_survives_json(flip: object) -> None:
    recipe = msgspec.convert({"flip": flip, "lr": 0.2}, Recipe)
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"randoms": -1}, "randoms must be at least 0, got -1"),
        ({"sampling": "widening", "randoms": 0}, "nothing but the trunk would be trained"),
    ],
)
def test_bank_plan_that_trains_nothing_of_use_is_refused(fields: dict[str, Any], said: str) -> None:  # Any: values of any field
    with pytest.raises(InvalidConfig, match=said):
        BankPlan(**fields)
