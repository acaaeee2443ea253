import numpy as np
import pytest
import torch
from torch import Tensor

from nas.errors import InvalidConfig, InvalidData, InvalidLogits
from nas.losses import asm_soft_landmarks, landmark_kd_loss
from nas.losses.landmark import Preset

TOUGH, TOLERANT = 0.4, 0.49


def loss_at(e: float, *, side: float = 1.0, d_tough: float = TOUGH, d_tolerant: float = TOLERANT, preset: Preset = "figure") -> float:
    """The loss of one coordinate at distance ``e`` from the truth 0.5; the other coordinate is equal."""
    truth = torch.full((1, 1, 2), 0.5, dtype=torch.float64)
    return float(landmark_kd_loss(truth + side * e, truth, truth + d_tough, truth - d_tolerant, preset=preset))


def by_hand(e: float, d_tough: float, d_tolerant: float, preset: Preset) -> float:
    """The same for one coordinate, in plain Python from the published pieces."""
    if preset == "figure":
        main = e if e <= 0.5 else e * e + 0.5 - 0.25
        parts = []
        for d in (d_tough, d_tolerant):
            omega = 0.9 if e >= d else -0.45 if e >= 0.4 * d else -0.45 * e / (0.4 * d)
            parts.append(omega * abs(e - d))
        return 2.5 * main + sum(parts)
    main = 3 * e if e <= d_tolerant else e * e + 3 * d_tolerant - d_tolerant**2
    parts = []
    for d, assist, resist in ((d_tough, 1.9, -0.45), (d_tolerant, 1.8, -0.40)):
        omega = assist if e > d else resist if e >= 0.15 * d else 0.0
        parts.append(omega * abs(e - d))
    return 2 * main + sum(parts)


@pytest.mark.parametrize(
    ("e", "value"), [(0.1, 0.0761), (0.125, 0.1111), (0.15, 0.1524), (0.2, 0.2795), (0.3, 0.6195), (0.35, 0.7895)]
)
def test_loss_follows_the_papers_curve(e: float, value: float) -> None:
    # read off the figure: four digits
    assert loss_at(e) == pytest.approx(value, abs=1.01e-4)


@pytest.mark.parametrize("preset", ["figure", "release"])
def test_loss_is_its_pieces_in_every_region(preset: Preset) -> None:
    for e in np.linspace(0, 1.2, 49) + 1e-6:
        assert loss_at(float(e), preset=preset) == pytest.approx(by_hand(float(e), TOUGH, TOLERANT, preset), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("preset", ["figure", "release"])
def test_loss_is_the_same_on_both_sides_of_the_truth(preset: Preset) -> None:
    for e in (0.02, 0.2, 0.45, 0.8):
        assert loss_at(e, preset=preset) == pytest.approx(loss_at(e, side=-1.0, preset=preset), rel=1e-9)


def test_truth_is_a_minimum_where_the_main_weight_allows() -> None:
    # 2.5 is above 2 · 0.45 / 0.4 = 2.25
    assert loss_at(0.0) < loss_at(1e-3) < loss_at(2e-3)
    assert loss_at(0.0) == 0.0


@pytest.mark.parametrize("preset", ["figure", "release"])
def test_perfect_teachers_and_student_cost_nothing_and_stay_finite(preset: Preset) -> None:
    truth = torch.rand(2, 3, 2, requires_grad=True)
    predicted = truth.detach().clone().requires_grad_()
    loss = landmark_kd_loss(predicted, truth, truth, truth, preset=preset)
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0.0
    assert predicted.grad is not None
    assert bool(predicted.grad.isfinite().all())


@pytest.mark.parametrize("preset", ["figure", "release"])
def test_gradient_reaches_the_student_alone_and_is_exact(preset: Preset) -> None:
    g = torch.Generator().manual_seed(0)
    points: list[Tensor] = [torch.rand(2, 4, 2, dtype=torch.float64, generator=g).requires_grad_() for _ in range(4)]
    torch.autograd.backward(landmark_kd_loss(*points, preset=preset))
    assert [p.grad is not None for p in points] == [True, False, False, False]
    fixed = [p.detach() for p in points[1:]]
    assert torch.autograd.gradcheck(lambda p: landmark_kd_loss(p, *fixed, preset=preset), points[0])


def test_mean_is_over_batch_points_and_coordinates() -> None:
    truth = torch.zeros(2, 3, 2, dtype=torch.float64)
    predicted = torch.linspace(-1, 1, 12, dtype=torch.float64).view(2, 3, 2)
    tough, tolerant = truth + TOUGH, truth + TOLERANT
    want = np.mean([by_hand(abs(e), TOUGH, TOLERANT, "figure") for e in predicted.flatten().tolist()])
    assert float(landmark_kd_loss(predicted, truth, tough, tolerant)) == pytest.approx(want, rel=1e-9)


def test_points_of_another_count_are_refused() -> None:
    a, b = torch.zeros(1, 3, 2), torch.zeros(1, 4, 2)
    with pytest.raises(InvalidLogits, match="one shape"):
        landmark_kd_loss(a, a, b, a)


def shapes(count: int, *, points: int = 5, seed: int = 0) -> np.ndarray:
    """Shapes of three modes of variation and a little noise."""
    rng = np.random.default_rng(seed)
    modes = np.random.default_rng(7).normal(size=(3, points * 2))
    rows = rng.normal(size=(count, 3)) * (3.0, 1.0, 0.4) @ modes + 0.05 * rng.normal(size=(count, points * 2))
    return (rows + np.arange(points * 2)).reshape(count, points, 2)


def by_eigenvectors(train: np.ndarray, given: np.ndarray, variance: float, clamp: float) -> np.ndarray:
    """The same model from the covariance matrix."""
    rows = train.reshape(len(train), -1)
    values, vectors = np.linalg.eigh(np.cov(rows, rowvar=False))
    values, vectors = values[::-1], vectors[:, ::-1]
    k = next(i + 1 for i in range(len(values)) if values[: i + 1].sum() / values.sum() >= variance)
    b = (given.reshape(len(given), -1) - rows.mean(0)) @ vectors[:, :k]
    bound = clamp * np.sqrt(values[:k])
    result: np.ndarray = (rows.mean(0) + np.clip(b, -bound, bound) @ vectors[:, :k].T).reshape(given.shape)
    return result


@pytest.mark.parametrize(("variance", "clamp"), [(0.8, 3.0), (0.95, 3.0), (0.95, 0.5), (0.99, 3.0)])
def test_soft_landmarks_are_those_of_the_covariances_eigenvectors(variance: float, clamp: float) -> None:
    train, given = shapes(60), shapes(20, seed=1)
    soft = asm_soft_landmarks(train, given, variance=variance, clamp=clamp)
    assert np.allclose(soft, by_eigenvectors(train, given, variance, clamp), atol=1e-9)


def test_all_of_the_variance_gives_training_shapes_back() -> None:
    train = shapes(60)
    assert np.allclose(asm_soft_landmarks(train, train, variance=1.0, clamp=100.0), train)


def test_no_shapes_give_no_shapes() -> None:
    train = np.random.default_rng(0).normal(size=(5, 3, 2))
    assert asm_soft_landmarks(train, train[:0]).shape == (0, 3, 2)


@pytest.mark.parametrize("clamp", [0.0, -1.0, float("inf"), float("nan")])
def test_bound_that_is_none_is_refused(clamp: float) -> None:
    train = np.random.default_rng(0).normal(size=(5, 3, 2))
    with pytest.raises(InvalidConfig, match="clamp above 0 and finite"):
        asm_soft_landmarks(train, train, clamp=clamp)


def test_less_variance_smooths_more() -> None:
    train = shapes(60)
    errors = [np.abs(asm_soft_landmarks(train, train, variance=v) - train).mean() for v in (0.5, 0.9, 0.99)]
    assert errors == sorted(errors, reverse=True)


def test_shapes_in_whole_pixels_are_smoothed_between_pixels() -> None:
    train, given = ((100 * shapes(n, seed=s)).round().astype(np.int64) for n, s in ((60, 0), (20, 1)))
    soft = asm_soft_landmarks(train, given)
    assert soft.dtype == np.float64
    assert np.allclose(soft, by_eigenvectors(train.astype(float), given.astype(float), 0.95, 3.0), atol=1e-6)  # coordinates of 1000


def test_type_of_the_shapes_is_kept() -> None:
    assert asm_soft_landmarks(shapes(60), shapes(20, seed=1).astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_coordinates_that_are_not_finite_are_refused(wrong: float) -> None:
    whole, broken = shapes(60), shapes(20, seed=1)
    broken[3, 2, 1] = wrong
    with pytest.raises(InvalidData, match="1 of the shapes are not"):
        asm_soft_landmarks(whole, broken)
    with pytest.raises(InvalidData, match="1 of the training shapes are not"):
        asm_soft_landmarks(broken, whole)


def test_one_shape_is_no_model() -> None:
    with pytest.raises(InvalidData, match="two shapes"):
        asm_soft_landmarks(shapes(1), shapes(1))


def test_share_of_variance_must_be_one() -> None:
    with pytest.raises(InvalidConfig, match="variance must be above 0 and at most 1"):
        asm_soft_landmarks(shapes(3), shapes(1), variance=95)
