"""Published networks against their published counts, and against torchvision's own modules."""

import pytest
import torch
import torchvision

from search_spaces import BASELINES, UnknownName, baseline
from tests.search_spaces.counting import params_and_macs

# Names -> parameters at 1000 classes, millions of MACs at 224 px: the papers' figures, exact counts agree with torchvision and timm.
PUBLISHED = {
    "mobilenet_v2": (3_504_872, 300.8),
    "mnasnet_a1": (3_887_038, 311.6),
    "mnasnet_b1": (4_383_312, 314.4),
    "mnasnet_small": (2_030_264, 68.3),
    "mobilenet_v3_large": (5_483_032, 216.6),
    "mobilenet_v3_small": (2_542_856, 56.5),
    "mobilenet_v3_large_minimal": (3_924_288, 209.1),
    "mobilenet_v3_small_minimal": (2_044_736, 52.3),
}

# Changing one of these breaks every result that a user has stored: they hold for ever.
IDS = {
    "mobilenet_v2": "ccb710df53c5",
    "mnasnet_a1": "13ee06efbc77",
    "mnasnet_b1": "39fd293bcbd4",
    "mnasnet_small": "9aee6b64f95a",
    "mobilenet_v3_large": "dba36f95dc53",
    "mobilenet_v3_small": "ebd835d115fd",
    "mobilenet_v3_large_minimal": "67fdab55b3b9",
    "mobilenet_v3_small_minimal": "5b38944b55e4",
}


def test_every_baseline_has_a_published_count_and_a_fixed_id() -> None:
    assert set(BASELINES) == set(PUBLISHED) == set(IDS)


@pytest.mark.parametrize("name", BASELINES)
def test_ids_hold_for_ever(name: str) -> None:
    assert baseline(name).id == IDS[name]


@pytest.mark.parametrize("name", BASELINES)
def test_parameters_are_the_published_ones(name: str) -> None:
    assert params_and_macs(baseline(name))[0] == PUBLISHED[name][0]


@pytest.mark.parametrize("name", BASELINES)
def test_macs_are_the_published_ones_to_the_digit_shown(name: str) -> None:
    assert round(params_and_macs(baseline(name))[1] / 1e6, 1) == PUBLISHED[name][1]


@pytest.mark.parametrize(
    ("name", "width", "outputs", "params"),
    [
        ("mobilenet_v2", 1.4, 1000, 6_108_776),
        ("mnasnet_b1", 0.5, 1000, 2_218_512),
        ("mnasnet_b1", 0.75, 1000, 3_170_208),
        ("mnasnet_b1", 1.3, 1000, 6_282_256),
        ("mnasnet_a1", 1.4, 1000, 6_105_992),
        ("mnasnet_a1", 0.75, 1000, 2_912_278),
        ("mnasnet_a1", 0.5, 1000, 2_082_006),
        ("mnasnet_a1", 0.35, 1000, 1_747_018),
        ("mobilenet_v3_large", 0.75, 1001, 3_994_809),
    ],
)
def test_parameters_at_other_widths_are_the_published_ones(name: str, width: float, outputs: int, params: int) -> None:
    assert params_and_macs(baseline(name, width=width, outputs=outputs))[0] == params


@pytest.mark.parametrize(
    ("name", "params", "mega_macs"),
    [
        ("mobilenet_v2", 2_236_682, 87.98),
        ("mobilenet_v3_large", 4_214_842, 66.46),
        ("mobilenet_v3_small", 1_528_106, 17.51),
        ("mnasnet_a1", 2_618_848, 91.68),
    ],
)
def test_counts_for_cifar_are_the_published_ones(name: str, params: int, mega_macs: float) -> None:
    counted = params_and_macs(baseline(name, input_chw=(3, 32, 32), outputs=10))
    assert (counted[0], round(counted[1] / 1e6, 2)) == (params, mega_macs)


@pytest.mark.parametrize("width", [0.25, 0.35, 0.5, 0.75, 0.9, 1.0, 1.3, 1.4, 2.0])
def test_mobilenet_v2_has_torchvisions_parameters_at_any_width(width: float) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.mobilenet_v2(width_mult=width)
    assert params_and_macs(baseline("mobilenet_v2", width=width))[0] == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 0.9, 1.0, 1.3, 1.4, 2.0])
def test_mnasnet_b1_has_torchvisions_parameters_at_any_width(width: float) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.MNASNet(width)
    assert params_and_macs(baseline("mnasnet_b1", width=width))[0] == sum(p.numel() for p in theirs.parameters())


def test_mobilenet_v3_large_follows_its_table_row_by_row() -> None:
    blocks = baseline("mobilenet_v3_large").blocks
    rows = [(b.kernel, b.hidden_ch, b.out_ch, b.se_ch, b.act, b.stride) for b in blocks]
    assert rows == [
        (3, 0, 16, 0, "hswish", 2),
        (3, 0, 16, 0, "relu", 1),
        (3, 64, 24, 0, "relu", 2),
        (3, 72, 24, 0, "relu", 1),
        (5, 72, 40, 24, "relu", 2),
        (5, 120, 40, 32, "relu", 1),
        (5, 120, 40, 32, "relu", 1),
        (3, 240, 80, 0, "hswish", 2),
        (3, 200, 80, 0, "hswish", 1),
        (3, 184, 80, 0, "hswish", 1),
        (3, 184, 80, 0, "hswish", 1),
        (3, 480, 112, 120, "hswish", 1),
        (3, 672, 112, 168, "hswish", 1),
        (5, 672, 160, 168, "hswish", 2),
        (5, 960, 160, 240, "hswish", 1),
        (5, 960, 160, 240, "hswish", 1),
        (1, 0, 960, 0, "hswish", 1),
    ]


def test_mobilenet_v3_small_follows_its_table_row_by_row() -> None:
    blocks = baseline("mobilenet_v3_small").blocks[1:-1]
    rows = [(b.kernel, b.hidden_ch, b.out_ch, b.se_ch, b.act, b.stride) for b in blocks]
    assert rows == [
        (3, 0, 16, 8, "relu", 2),
        (3, 72, 24, 0, "relu", 2),
        (3, 88, 24, 0, "relu", 1),
        (5, 96, 40, 24, "hswish", 2),
        (5, 240, 40, 64, "hswish", 1),
        (5, 240, 40, 64, "hswish", 1),
        (5, 120, 48, 32, "hswish", 1),
        (5, 144, 48, 40, "hswish", 1),
        (5, 288, 96, 72, "hswish", 2),
        (5, 576, 96, 144, "hswish", 1),
        (5, 576, 96, 144, "hswish", 1),
    ]


def test_mnasnet_a1_takes_se_widths_from_the_input_unrounded() -> None:
    gates = [(b.se_ch, b.se_gate) for b in baseline("mnasnet_a1").blocks if b.se_ch]
    assert gates == [(ch, "sigmoid") for ch in (6, 10, 10, 20, 28, 28, 40, 40)]


def test_mobilenet_v2_adds_its_ten_residuals() -> None:
    assert [b.name for b in baseline("mobilenet_v2").blocks if b.skip == "identity"] == [
        "s2b2", "s3b2", "s3b3", "s4b2", "s4b3", "s4b4", "s5b2", "s5b3", "s6b2", "s6b3",
    ]  # fmt: skip


def test_mnasnet_small_has_no_skip_in_its_first_block() -> None:
    assert baseline("mnasnet_small").blocks[1].skip == "none"


def test_minimal_variants_have_3x3_kernels_relu_and_no_se() -> None:
    blocks = [b for name in ("large", "small") for b in baseline(f"mobilenet_v3_{name}_minimal").blocks[:-1]]
    assert {(b.kernel, b.act, b.se_ch) for b in blocks} == {(3, "relu", 0)}


@pytest.mark.parametrize(("width", "hidden_ch"), [(0.5, 1280), (1.0, 1280), (1.25, 1600)])
def test_mobilenet_v3_widens_its_head_but_never_narrows_it(width: float, hidden_ch: int) -> None:
    assert baseline("mobilenet_v3_large", width=width).head.width_ch == hidden_ch


def test_unknown_baseline_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mobilenet_v2'"):
        baseline("mobilenetv2")
