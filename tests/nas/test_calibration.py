from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from nas.calibration import BINS, Calibration, calibrate, draw_reliability, fitted_temperature


def by_hand(p: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """ECE, NLL and Brier, image by image and bin by bin."""
    confidence, right = p.max(1), p.argmax(1) == y
    ece = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    nll = -np.mean([np.log(row[label]) for row, label in zip(p, y, strict=True)])
    brier = np.mean([sum((q - (k == label)) ** 2 for k, q in enumerate(row)) for row, label in zip(p, y, strict=True)])
    return float(ece), float(nll), float(brier)


def drawn(count: int = 2000, *, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from their own softmax: calibrated by construction."""
    g = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(count, 10, generator=g, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=g).squeeze(1)


def test_figures_are_those_of_the_definitions() -> None:
    logits, y = drawn(300)
    found = calibrate(logits, y)
    assert (found.ece, found.nll, found.brier) == pytest.approx(by_hand(logits.softmax(1).numpy(), y.numpy()), rel=1e-9)


def test_two_images_counted_on_fingers() -> None:
    # 0.8 and right, 0.6 and wrong: two bins of half the images each
    logits = torch.log(torch.tensor([[0.8, 0.2], [0.6, 0.4]], dtype=torch.float64))
    found = calibrate(logits, torch.tensor([0, 1]))
    assert found.ece == pytest.approx((0.2 + 0.6) / 2)
    assert found.nll == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert found.brier == pytest.approx((2 * 0.04 + 2 * 0.36) / 2)


def test_calibrated_logits_err_little_and_sharper_or_flatter_ones_much() -> None:
    logits, y = drawn()
    plain, sharp, flat = (calibrate(logits / t, y).ece for t in (1.0, 0.5, 2.0))
    assert plain < 0.05  # of 2,000 images: noise alone gives 2 to 3 %
    assert min(sharp, flat) > 3 * plain


def test_temperature_that_spoilt_calibrated_logits_is_found_again() -> None:
    logits, y = drawn(4000)
    for spoilt in (0.5, 1.0, 3.0):
        assert fitted_temperature(logits * spoilt, y) == pytest.approx(spoilt, rel=0.1)  # noise of 4,000 labels


def test_scaling_mends_what_a_temperature_spoilt() -> None:
    logits, y = drawn()
    found = calibrate(logits * 3, y, temperature=3.0)
    assert found.ece_scaled == pytest.approx(calibrate(logits, y).ece, rel=1e-9)
    assert found.temperature == 3.0


def test_logits_without_bound_stay_finite() -> None:
    found = calibrate(torch.tensor([[1e4, -1e4], [-1e4, 1e4]]), torch.tensor([0, 0]))
    assert found.ece == pytest.approx(0.5)
    assert found.nll == pytest.approx(1e4)
    assert sum(b.images for b in found.bins) == 2


def test_bins_hold_every_image_once() -> None:
    found = calibrate(*drawn(500))
    assert len(found.bins) == BINS
    assert sum(b.images for b in found.bins) == 500


def test_figures_survive_json() -> None:
    found = calibrate(*drawn(50), temperature=1.5)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Calibration) == found


@pytest.mark.parametrize("networks", [1, 5])
def test_diagram_is_a_png_and_leaves_no_other_file(tmp_path: Path, networks: int) -> None:
    found = calibrate(*drawn(50))
    draw_reliability({f"net {i}": found for i in range(networks)}, tmp_path / "reliability.png", title="made up")
    assert (tmp_path / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["reliability.png"]
