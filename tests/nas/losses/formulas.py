"""The losses again, sample by sample in numpy, from their published formulas; and logits to try them on."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vector = NDArray[np.float64]


def softmax(z: Vector) -> Vector:
    e = np.exp(z - z.max())
    result: Vector = e / e.sum()
    return result


def entropy(p: Vector) -> float:
    return float(-(p * np.log(p)).sum())


def kl(p: Vector, q: Vector) -> float:
    return float((p * np.log(p / q)).sum())


def mean_of(each: Callable[[Vector, Vector, int], float], student: Tensor, teacher: Tensor, target: Tensor) -> float:
    rows = zip(student.detach().numpy(), teacher.detach().numpy(), target.tolist(), strict=True)
    return float(np.mean([each(s, t, y) for s, t, y in rows]))


def kd(s: Vector, t: Vector, _: int, tau: float) -> float:
    return tau**2 * kl(softmax(t / tau), softmax(s / tau))


def without(values: Vector, labels: Sequence[int]) -> Vector:
    return np.delete(values, list(labels))


def tckd(s: Vector, t: Vector, y: int, tau: float) -> float:
    ps, pt = softmax(s / tau)[y], softmax(t / tau)[y]
    return kl(np.array([pt, 1 - pt]), np.array([ps, 1 - ps]))


def nckd(s: Vector, t: Vector, y: int, tau: float) -> float:
    return kl(softmax(without(t, [y]) / tau), softmax(without(s, [y]) / tau))


def dkd(s: Vector, t: Vector, y: int, alpha: float, beta: float, tau: float) -> float:
    return tau**2 * (alpha * tckd(s, t, y, tau) + beta * nckd(s, t, y, tau))


def nkd(s: Vector, t: Vector, y: int, gamma: float, lam: float) -> float:
    other_t, other_s = softmax(without(t, [y]) / lam), softmax(without(s, [y]) / lam)
    return float(-softmax(t)[y] * np.log(softmax(s)[y]) - gamma * lam**2 * (other_t * np.log(other_s)).sum())


def dist(student: Tensor, teacher: Tensor, beta: float, gamma: float, tau: float) -> float:
    s = np.stack([softmax(r / tau) for r in student.detach().numpy()])
    t = np.stack([softmax(r / tau) for r in teacher.numpy()])
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(s, t, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(s.T, t.T, strict=True)])
    return float(tau**2 * (beta * inter + gamma * intra))


def uskd(
    logits: Tensor, weak: Tensor, rows: Vector, labels: Sequence[Sequence[int]], alpha: float, beta: float, mu: float, logs: bool
) -> float:
    """``labels``: the label classes of each sample, one or two; ``logs``: rank by log-probabilities."""
    s = [softmax(z) for z in logits.detach().numpy()]
    w = [softmax(z) for z in weak.detach().numpy()]
    classes, slots = len(s[0]), range(len(labels[0]))
    means = [np.mean([p[own[k]] ** 2 for p, own in zip(s, labels, strict=True)]) for k in slots]
    total = 0.0
    for p, q, v, own in zip(s, w, rows, labels, strict=True):
        soft = [p[c] ** 2 + v[c] - means[k] if v[c] else 0.0 for k, c in enumerate(own)]
        target = -sum(x * np.log(p[c]) for x, c in zip(soft, own, strict=True))
        strong = np.log(p) if logs else p
        score = q / (1 - sum(q[c] for c in own) + 1e-6) + strong / (1 - sum(strong[c] for c in own) + 1e-6)
        raw = np.array([1 / (1 + sum(score[j] > score[i] for j in range(classes))) for i in range(classes)])
        zipf = without(raw, own) / without(raw, own).sum()
        non_target = -float((zipf * np.log(softmax(without(np.log(p), own)))).sum())
        weak_part = -float(((0.9 * v + 0.1 / classes) * np.log(q)).sum())
        total += alpha * target + beta * non_target + mu * weak_part
    return total / len(s)


def bdkd_student(s: Vector, t: Vector, _: int, nu: float, tau: float) -> float:
    ps, pt = softmax(s / tau), softmax(t / tau)
    a, b = (nu, 1.0) if entropy(ps) < entropy(pt) else (1.0, nu)
    return tau**2 * (a * kl(pt, ps) + b * kl(ps, pt))


def bdkd_teacher(s: Vector, t: Vector, _: int, tau: float) -> float:
    return tau**2 * kl(softmax(s / tau), softmax(t / tau))


def logits(count: int = 6, classes: int = 5, *, seed: int = 0, scale: float = 2.0) -> Tensor:
    """Random logits (count, classes) in float64."""
    return scale * torch.randn(count, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def targets(count: int = 6, classes: int = 5, *, seed: int = 9) -> Tensor:
    """Random class indices (count,)."""
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))
