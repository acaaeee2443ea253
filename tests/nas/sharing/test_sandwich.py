import numpy as np
import pytest

from nas.sharing.sandwich import Sandwich, counted
from search_spaces import SPACES, Head, open_space
from search_spaces.stage import split_op
from tests.search_spaces.counting import params_and_macs

HEAD = Head(outputs=3)
MNASNET = open_space("mnasnet", width=0.35, input_chw=(3, 32, 32))


def test_step_runs_the_largest_the_smallest_and_so_many_others() -> None:
    sandwich = Sandwich.of(MNASNET, 3)
    first, second, *others = sandwich.picks({}, np.random.default_rng(0))
    assert first == sandwich.grandest({})
    assert second == MNASNET.corners()[0]
    assert len(others) == 3
    assert len({MNASNET.decode(picks, HEAD).id for picks in others}) == 3


def test_same_random_numbers_draw_the_same_networks() -> None:
    sandwich = Sandwich.of(MNASNET, 2)
    one, two = (sandwich.picks({}, np.random.default_rng(5)) for _ in range(2))
    assert one == two


def test_stage_of_the_largest_takes_the_op_used_least_so_far() -> None:
    usage = {"s3.op": {"conv": 3, "sepconv": 1, "mbconv": 2}, "s4.op": {"conv": 0, "sepconv": 1, "mbconv": 2}, "s5.op": {"conv": 1}}
    picks = Sandwich.of(MNASNET, 0).grandest(usage)
    assert (picks["s3.op"], picks["s4.op"]) == ("sepconv", "conv")
    # neither sepconv nor mbconv was used in s5, and mbconv6 is the greater mbconv
    assert picks["s5.op"] in ("sepconv", "mbconv6")


def test_largest_has_the_greatest_depth_width_and_kernel_whatever_its_ops() -> None:
    picks = Sandwich.of(MNASNET, 0).grandest({f"s{n}.op": {"mbconv": 1, "conv": 1} for n in range(1, 8)})
    assert {name.partition(".")[2]: value for name, value in picks.items()} == {
        "op": "sepconv", "kernel": 5, "se": 0.25, "skip": "identity", "width": 1.25, "depths": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name in SPACES if any(choice.endswith(".op") for choice in open_space(name).choices())])
def test_every_op_of_every_stage_has_its_turn(name: str) -> None:
    sandwich, usage = Sandwich.of(open_space(name, input_chw=(3, 32, 32)), 0), dict[str, dict[str, int]]()
    for step in range(12):
        usage = counted(usage, sandwich.picks(usage, np.random.default_rng(step)))
    ops = {k: {split_op(str(t))[0] for t in menu} for k, menu in sandwich.space.choices().items() if k.endswith(".op")}
    assert {k: set(used) for k, used in usage.items()} == ops
    # two networks a step, each with one op a stage; the smallest always has the same
    assert all(sum(used.values()) == 24 and min(used.values()) >= 12 // len(used) - 1 for used in usage.values())


@pytest.mark.parametrize("name", SPACES)
def test_every_op_of_every_place_is_trained(name: str) -> None:
    """Those that an expansion of 1 makes among them, and those in blocks that the smallest network has not."""
    sandwich, usage = Sandwich.of(open_space(name, input_chw=(3, 32, 32)), 2), dict[str, dict[str, int]]()
    seen: dict[str, set[str]] = {}
    for step in range(40):
        picked = sandwich.picks(usage, np.random.default_rng(step))
        usage = counted(usage, picked)
        for picks in picked:
            for block in sandwich.space.decode(picks, HEAD).blocks:
                seen.setdefault(block.name, set()).add(block.op)
    assert seen == {place: {block.op for block in menu} for place, menu in sandwich.space.block_menus().items()}


@pytest.mark.parametrize("name", SPACES)
def test_largest_costs_more_than_what_is_drawn(name: str) -> None:
    space = open_space(name, width=0.35, input_chw=(3, 32, 32))
    sandwich, rng = Sandwich.of(space, 0), np.random.default_rng(0)
    drawn = [params_and_macs(space.decode(space.sample(rng), HEAD))[1] for _ in range(20)]
    assert params_and_macs(space.decode(sandwich.grandest({}), HEAD))[1] > np.median(drawn)


def test_usage_counts_ops_and_not_their_expansions() -> None:
    first = counted({}, [{"a.op": "mbconv3", "a.kernel": 3}, {"a.op": "mbconv6", "a.kernel": 5}])
    assert counted(first, [{"a.op": "conv", "a.kernel": 5}]) == {"a.op": {"mbconv": 2, "conv": 1}}
    assert first == {"a.op": {"mbconv": 2}}
