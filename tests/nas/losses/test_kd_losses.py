"""KD, SKD, DKD, DIST, NKD and BD-KD against their formulas and against the identities that tie them together."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.errors import InvalidConfig, InvalidLogits
from nas.losses import bdkd_loss, dist_loss, dkd_loss, kd_loss, nkd_loss, skd_loss
from nas.losses.rows import labels_of, others, soft_rows
from tests.nas.losses import formulas
from tests.nas.losses.formulas import logits, mean_of, targets

S, T, Y = logits(seed=1), logits(seed=2), targets()


def gradient(loss: Tensor, wrt: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, wrt)
    return found


@pytest.mark.parametrize("tau", [1.0, 2.5, 4.0])
def test_kd_is_the_softened_divergence_times_tau_squared(tau: float) -> None:
    assert float(kd_loss(S, T, temperature=tau)) == pytest.approx(mean_of(lambda s, t, y: formulas.kd(s, t, y, tau), S, T, Y), rel=1e-9)


def test_kd_gradient_is_tau_times_the_difference_of_probabilities() -> None:
    s = S.clone().requires_grad_()
    want = 3.0 * (F.softmax(S / 3, 1) - F.softmax(T / 3, 1)) / len(S)
    assert torch.allclose(gradient(kd_loss(s, T, temperature=3.0), s), want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("alpha", "beta", "tau"), [(1.0, 8.0, 4.0), (0.0, 2.0, 1.0), (3.0, 0.0, 2.0)])
def test_dkd_is_its_two_parts(alpha: float, beta: float, tau: float) -> None:
    want = mean_of(lambda s, t, y: formulas.dkd(s, t, y, alpha, beta, tau), S, T, Y)
    assert float(dkd_loss(S, T, Y, alpha=alpha, beta=beta, temperature=tau)) == pytest.approx(want, rel=1e-9)


def test_dkd_with_the_teachers_own_weight_is_kd() -> None:
    for i in range(len(S)):
        s, t, y = S[i : i + 1], T[i : i + 1], Y[i : i + 1]
        rest = 1 - float(F.softmax(t / 2, 1)[0, y])
        want = float(kd_loss(s, t, temperature=2.0))
        assert float(dkd_loss(s, t, y, alpha=1.0, beta=rest, temperature=2.0)) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("beta", "gamma", "tau"), [(1.0, 1.0, 1.0), (2.0, 0.5, 4.0)])
def test_dist_is_one_minus_numpys_correlations(beta: float, gamma: float, tau: float) -> None:
    want = formulas.dist(S, T, beta, gamma, tau)
    assert float(dist_loss(S, T, beta=beta, gamma=gamma, temperature=tau)) == pytest.approx(want, rel=1e-6)  # 1e-8 in our denominator


def test_dist_asks_for_the_relations_alone() -> None:
    # mixing every row with the uniform one keeps each row's order and correlation
    teacher = F.softmax(T, 1)
    student = torch.log(0.5 * teacher + 0.5 / teacher.shape[1])
    assert float(dist_loss(student, T)) == pytest.approx(0.0, abs=1e-6)
    assert float(kd_loss(student, T, temperature=1.0)) > 0.05


@pytest.mark.parametrize(("gamma", "lam"), [(1.5, 1.0), (3.5, 3.0), (0.0, 2.0)])
def test_nkd_is_its_formula(gamma: float, lam: float) -> None:
    want = mean_of(lambda s, t, y: formulas.nkd(s, t, y, gamma, lam), S, T, Y)
    assert float(nkd_loss(S, T, Y, gamma=gamma, temperature=lam)) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("lam", [1.0, 3.0])
def test_nkd_gradient_is_the_closed_form(lam: float) -> None:
    s = S.clone().requires_grad_()
    onehot = F.one_hot(Y, 5).double()
    target = F.softmax(T, 1).gather(1, Y[:, None]) * (F.softmax(S, 1) - onehot)
    masked = [F.softmax((z / lam).masked_fill(onehot.bool(), -torch.inf), 1) for z in (S, T)]
    want = (target + 1.5 * lam * (masked[0] - masked[1])) / len(S)
    assert torch.allclose(gradient(nkd_loss(s, T, Y, gamma=1.5, temperature=lam), s), want, rtol=1e-9, atol=1e-14)


def test_nkd_pulls_non_targets_as_dkd_does() -> None:
    one, two = S.clone().requires_grad_(), S.clone().requires_grad_()
    with_both = gradient(nkd_loss(one, T, Y, gamma=2.0, temperature=3.0), one)
    target_only = gradient(nkd_loss(one, T, Y, gamma=0.0, temperature=3.0), one)
    nckd = gradient(dkd_loss(two, T, Y, alpha=0.0, beta=2.0, temperature=3.0), two)
    assert torch.allclose(with_both - target_only, nckd, rtol=1e-9, atol=1e-14)


def test_soft_rows_count_as_their_largest_class_in_nkd_and_dkd() -> None:
    mixed = 0.7 * F.one_hot(Y, 5).double() + 0.3 * F.one_hot((Y + 1) % 5, 5)
    assert float(nkd_loss(S, T, mixed)) == float(nkd_loss(S, T, Y))
    assert float(dkd_loss(S, T, mixed)) == float(dkd_loss(S, T, Y))


@pytest.mark.parametrize(("nu", "tau"), [(2.0, 1.0), (0.5, 3.0), (1.0, 1.0)])
def test_bdkd_is_its_reconstruction(nu: float, tau: float) -> None:
    student, teacher = bdkd_loss(S, T, nu=nu, temperature=tau)
    assert float(student) == pytest.approx(mean_of(lambda s, t, y: formulas.bdkd_student(s, t, y, nu, tau), S, T, Y), rel=1e-9)
    assert float(teacher) == pytest.approx(mean_of(lambda s, t, y: formulas.bdkd_teacher(s, t, y, tau), S, T, Y), rel=1e-9)


def test_bdkd_without_balance_is_jeffreys_divergence() -> None:
    both = [kd_loss(S, T, temperature=1.0), kd_loss(T, S, temperature=1.0)]
    assert float(bdkd_loss(S, T, nu=1.0)[0]) == pytest.approx(float(both[0]) + float(both[1]), rel=1e-9)


def test_bdkd_leans_on_the_forward_divergence_where_the_student_is_too_sure() -> None:
    flat, sharp = 0.1 * S, 3.0 * S
    forward, reverse = float(kd_loss(sharp, flat, temperature=1.0)), float(kd_loss(flat, sharp, temperature=1.0))
    assert float(bdkd_loss(sharp, flat, nu=5.0)[0]) == pytest.approx(5 * forward + reverse, rel=1e-9)
    assert float(bdkd_loss(sharp, flat, nu=5.0, direction="reversed")[0]) == pytest.approx(forward + 5 * reverse, rel=1e-9)


def test_bdkd_sigmoid_of_a_tiny_softness_is_the_switch() -> None:
    soft, hard = bdkd_loss(S, T, switch="sigmoid", softness=1e-9)[0], bdkd_loss(S, T)[0]
    assert float(soft) == pytest.approx(float(hard), rel=1e-9)


def test_bdkd_gives_each_network_its_own_part_only() -> None:
    s, t = S.clone().requires_grad_(), T.clone().requires_grad_()
    student, teacher = bdkd_loss(s, t)
    torch.autograd.backward(student, retain_graph=True)
    assert s.grad is not None
    assert t.grad is None
    s.grad = None
    torch.autograd.backward(teacher)
    assert s.grad is None
    assert t.grad is not None


@pytest.mark.parametrize("target", [Y, 0.6 * F.one_hot(Y, 5).double() + 0.4 * F.one_hot((Y + 2) % 5, 5)], ids=["labels", "mixed"])
def test_skd_goes_from_cross_entropy_to_kd(target: Tensor) -> None:
    assert float(skd_loss(S, T, target, alpha=0.0, temperature=2.0)) == pytest.approx(float(F.cross_entropy(S, target)), rel=1e-12)
    assert float(skd_loss(S, T, target, alpha=1.0, temperature=2.0)) == pytest.approx(float(kd_loss(S, T, temperature=2.0)), rel=1e-12)


def test_student_that_equals_its_teacher_has_nothing_to_learn() -> None:
    for loss in (kd_loss(S, S), dkd_loss(S, S, Y), dist_loss(S, S), *bdkd_loss(S, S)):
        assert float(loss) == pytest.approx(0.0, abs=1e-6)  # dist: 1e-8 in the denominator, next to norms of 0.1


def test_teacher_of_other_classes_is_refused() -> None:
    with pytest.raises(InvalidLogits, match=r"both be \(N, C\), got \(6, 5\) and \(6, 4\)"):
        kd_loss(S, T[:, :4])


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("inf"), float("nan")])
def test_temperature_must_be_positive(wrong: float) -> None:
    with pytest.raises(InvalidConfig, match="temperature must be above 0"):
        kd_loss(S, T, temperature=wrong)


def test_alpha_of_skd_is_a_share() -> None:
    with pytest.raises(InvalidConfig, match="alpha must be 0 to 1"):
        skd_loss(S, T, Y, alpha=1.5, temperature=1.0)


def test_unknown_choices_of_bdkd_are_named() -> None:
    with pytest.raises(InvalidConfig, match="direction must be balance or reversed, got 'forward'"):
        bdkd_loss(S, T, direction="forward")  # type: ignore[arg-type]  # what a file may hold


def test_others_leaves_out_the_labels_and_keeps_the_order() -> None:
    values = torch.arange(10.0).view(2, 5)
    assert others(values, torch.tensor([[1], [4]])).tolist() == [[0, 2, 3, 4], [5, 6, 7, 8]]
    assert others(values, torch.tensor([[3, 0], [1, 2]])).tolist() == [[1, 2, 4], [5, 8, 9]]


def test_labels_and_rows_are_two_views_of_one_target() -> None:
    assert torch.equal(soft_rows(Y, S).argmax(1), Y)
    assert torch.equal(labels_of(soft_rows(Y, S)), Y)
