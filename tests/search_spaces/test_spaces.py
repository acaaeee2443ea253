"""What every built-in space must obey, and what each of them is."""

import numpy as np
import pytest

from search_spaces import SPACES, Head, UnknownName, baseline, from_json, open_space, pieces, to_json
from tests.search_spaces.counting import params_and_macs

HEAD = Head(outputs=10)
PLACES = [(1.0, (3, 224, 224)), (0.35, (3, 32, 32)), (0.05, (3, 64, 64)), (1.4, (1, 28, 28)), (0.5, (12, 1, 500))]


@pytest.mark.parametrize(("width", "input_chw"), PLACES)
@pytest.mark.parametrize("name", SPACES)
def test_every_pick_decodes_and_comes_back_from_json(name: str, width: float, input_chw: tuple[int, int, int]) -> None:
    space, rng = open_space(name, width=width, input_chw=input_chw), np.random.default_rng(0)
    archs = [space.decode(space.sample(rng), HEAD) for _ in range(50)]
    assert [from_json(to_json(arch)) for arch in archs] == archs


@pytest.mark.parametrize(("width", "input_chw"), PLACES)
@pytest.mark.parametrize("name", SPACES)
def test_every_member_is_encoded_to_picks_that_decode_to_it(name: str, width: float, input_chw: tuple[int, int, int]) -> None:
    space, rng = open_space(name, width=width, input_chw=input_chw), np.random.default_rng(1)
    archs = [space.decode(space.sample(rng), HEAD) for _ in range(20)]
    assert [space.decode(space.encode(arch), arch.head).id for arch in archs] == [arch.id for arch in archs]


@pytest.mark.parametrize("name", SPACES)
def test_every_single_choice_decodes(name: str) -> None:
    space = open_space(name, width=0.35, input_chw=(3, 32, 32))
    picks = space.sample(np.random.default_rng(2))
    archs = [space.decode(near, HEAD) for near in space.neighbours(picks)]
    assert len(archs) == sum(len(menu) - 1 for menu in space.choices().values())


@pytest.mark.parametrize("name", SPACES)
def test_choices_are_the_same_at_every_width_and_input(name: str) -> None:
    menus = [open_space(name, width=width, input_chw=chw).choices() for width, chw in PLACES]
    assert menus == [SPACES[name].choices()] * len(PLACES)


@pytest.mark.parametrize("name", SPACES)
def test_menus_have_more_than_one_entry_and_no_repeats(name: str) -> None:
    assert all(1 < len(menu) == len(set(menu)) for menu in SPACES[name].choices().values())


@pytest.mark.parametrize(("width", "input_chw"), PLACES)
@pytest.mark.parametrize("name", SPACES)
def test_corners_bound_the_parameters_of_all_samples(name: str, width: float, input_chw: tuple[int, int, int]) -> None:
    space, rng = open_space(name, width=width, input_chw=input_chw), np.random.default_rng(3)
    smallest, largest = (params_and_macs(space.decode(picks, HEAD))[0] for picks in space.corners())
    sampled = [params_and_macs(space.decode(space.sample(rng), HEAD))[0] for _ in range(50)]
    assert smallest < min(sampled) <= max(sampled) < largest


@pytest.mark.parametrize(("side_px", "end_px"), [(32, 4), (40, 5), (64, 4), (80, 5), (96, 3), (224, 7)])
@pytest.mark.parametrize("name", SPACES)
def test_small_images_lose_fewer_pixels(name: str, side_px: int, end_px: int) -> None:
    space = open_space(name, input_chw=(3, side_px, side_px))
    arch = space.decode(space.corners()[0], HEAD)
    assert pieces(arch)[-1].in_chw[1:] == (end_px, end_px)


@pytest.mark.parametrize("name", SPACES)
def test_size_is_known_in_seconds_and_never_above_the_raw_picks(name: str) -> None:
    size = open_space(name, width=0.35, input_chw=(3, 32, 32)).size()
    assert 1 < size.distinct < size.raw


def test_mnasnet_has_432_picks_in_each_of_seven_stages() -> None:
    assert SPACES["mnasnet"].size().raw == 432**7


@pytest.mark.parametrize("input_chw", [(3, 224, 224), (3, 64, 64), (3, 32, 32)])
@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.4])
@pytest.mark.parametrize(
    ("space", "name"), [("mnasnet-offgrid", "mnasnet_a1"), ("mnasnet-offgrid", "mnasnet_b1"), ("mobilenetv3", "mobilenet_v3_large")]
)
def test_published_networks_are_members(space: str, name: str, width: float, input_chw: tuple[int, int, int]) -> None:
    opened = open_space(space, width=width, input_chw=input_chw)
    published = baseline(name, width=width, input_chw=input_chw)
    assert opened.decode(opened.encode(published), Head(outputs=1000)).id == published.id


@pytest.mark.parametrize("name", ["mnasnet_a1", "mnasnet_b1"])
def test_published_mnasnets_lie_off_the_papers_grid(name: str) -> None:
    with pytest.raises(ValueError, match=r"no member of 'mnasnet': block .* has no pick"):
        SPACES["mnasnet"].encode(baseline(name))


def test_tiny_is_tiny() -> None:
    space, rng = open_space("tiny", input_chw=(3, 32, 32)), np.random.default_rng(4)
    macs = sorted(params_and_macs(space.decode(space.sample(rng), HEAD))[1] for _ in range(200))
    assert 0.3e6 < macs[10] < macs[190] < 6e6


def test_tiny_has_between_a_thousand_and_a_million_networks() -> None:
    assert 1e3 < open_space("tiny", input_chw=(3, 32, 32)).size().distinct < 1e6


def test_unknown_space_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mnasnet'"):
        open_space("mnsanet")
