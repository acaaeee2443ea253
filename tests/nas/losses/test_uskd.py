import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.errors import InvalidConfig
from nas.losses import USKD, uskd_loss
from nas.losses.uskd import Ranking
from tests.nas.losses import formulas
from tests.nas.losses.formulas import logits, targets

Z, W, Y = logits(seed=3), logits(seed=4), targets()
MIXED = 0.7 * F.one_hot(Y, 5).double() + 0.3 * F.one_hot((Y + 1) % 5, 5)
TWO = [[int(y), (int(y) + 1) % 5] for y in Y]


@pytest.mark.parametrize("ranking", ["probability", "log_softmax"])
@pytest.mark.parametrize("weights", [(1.0, 0.1, 0.005), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
def test_hard_labels_give_the_published_loss(weights: tuple[float, float, float], ranking: Ranking) -> None:
    alpha, beta, mu = weights
    want = formulas.uskd(Z, W, F.one_hot(Y, 5).double().numpy(), [[int(y)] for y in Y], alpha, beta, mu, ranking == "log_softmax")
    assert float(uskd_loss(Z, W, Y, alpha=alpha, beta=beta, mu=mu, ranking=ranking)) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("weights", [(1.0, 0.1, 0.005), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)])
def test_mixed_labels_count_both_classes(weights: tuple[float, float, float]) -> None:
    alpha, beta, mu = weights
    want = formulas.uskd(Z, W, MIXED.numpy(), TWO, alpha, beta, mu, False)
    assert float(uskd_loss(Z, W, MIXED, alpha=alpha, beta=beta, mu=mu)) == pytest.approx(want, rel=1e-9)


def test_second_label_of_no_weight_gets_no_soft_label() -> None:
    rows = MIXED.clone()
    rows[0] = F.one_hot(Y[0], 5)
    second = next(c for c in range(5) if c != int(Y[0]))  # of equal values the first class
    want = formulas.uskd(Z, W, rows.numpy(), [[int(Y[0]), second], *TWO[1:]], 1.0, 0.1, 0.005, False)
    assert float(uskd_loss(Z, W, rows)) == pytest.approx(want, rel=1e-9)


def test_ranks_count_the_target_too() -> None:
    # one sample, the target surely first: the others' labels are 1/2, 1/3, 1/4 renormalised, to equal logits
    z = torch.tensor([[9.0, 3.0, 2.0, 1.0]], dtype=torch.float64)
    found = float(uskd_loss(z, z, torch.tensor([0]), alpha=0.0, beta=1.0, mu=0.0))
    zipf = np.array([1 / 2, 1 / 3, 1 / 4]) / (1 / 2 + 1 / 3 + 1 / 4)
    assert found == pytest.approx(-(zipf * np.log(formulas.softmax(np.array([3.0, 2.0, 1.0])))).sum(), rel=1e-9)


def test_soft_label_of_a_lone_sample_is_its_hard_one() -> None:
    # the batch mean of one is itself: S² + 1 - S² = 1
    z = Z[:1]
    assert float(uskd_loss(z, z, Y[:1], alpha=1.0, beta=0.0, mu=0.0)) == pytest.approx(float(F.cross_entropy(z, Y[:1])), rel=1e-12)


def test_weak_logits_learn_from_the_weak_part_alone() -> None:
    w = W.clone().requires_grad_()
    (whole,) = torch.autograd.grad(uskd_loss(Z, w, Y, alpha=1.0, beta=1.0, mu=0.3), w)
    smoothed = 0.9 * F.one_hot(Y, 5).double() + 0.1 / 5
    assert torch.allclose(whole, 0.3 * (F.softmax(W, 1) - smoothed) / len(W), rtol=1e-9, atol=1e-14)


def test_weak_part_trains_the_backbone_through_the_feature() -> None:
    module = USKD(4, 5, alpha=1.0, beta=1.0, mu=1.0)
    feature = torch.randn(6, 4, 3, 3, requires_grad=True)
    module(Z.float(), feature, Y).backward()
    assert feature.grad is not None
    assert float(feature.grad.abs().sum()) > 0


@torch.no_grad()
def test_module_is_the_loss_of_its_classifiers_logits() -> None:
    torch.manual_seed(0)
    module, feature = USKD(4, 5, mu=0.5), torch.randn(6, 4, 3, 3)
    weak: Tensor = module.weak(feature.mean((2, 3)))
    assert float(module(Z.float(), feature, Y)) == pytest.approx(float(uskd_loss(Z.float(), weak, Y, mu=0.5)), rel=1e-6)


def test_permuting_the_classes_permutes_the_gradient() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    place = order.argsort()
    one, two = Z.clone().requires_grad_(), Z[:, order].clone().requires_grad_()
    (plain,) = torch.autograd.grad(uskd_loss(one, W, Y), one)
    (moved,) = torch.autograd.grad(uskd_loss(two, W[:, order], place[Y]), two)
    assert torch.allclose(plain[:, order], moved, rtol=1e-9, atol=1e-14)


def test_unknown_ranking_is_named() -> None:
    with pytest.raises(InvalidConfig, match="ranking must be probability or log_softmax, got 'zipf'"):
        uskd_loss(Z, W, Y, ranking="zipf")  # type: ignore[arg-type]  # what a file may hold


def test_soft_labels_are_held_fixed_in_the_gradient() -> None:
    z = Z.clone().requires_grad_()
    (found,) = torch.autograd.grad(uskd_loss(z, W, Y, alpha=1.0, beta=0.0, mu=0.0), z)
    s, onehot = F.softmax(Z, 1), F.one_hot(Y, 5)
    own = s.gather(1, Y[:, None])
    label = own**2 + 1 - (own**2).mean()
    assert torch.allclose(found, label * (s - onehot) / len(Z), rtol=1e-9, atol=1e-14)
