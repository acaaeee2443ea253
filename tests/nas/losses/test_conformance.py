"""What every loss of the menu must obey: finite, exact gradients, none to the teacher, order of the batch, lower on a toy problem."""

import pytest
import torch
from torch import Tensor, nn

from nas.losses import LOSSES, Method
from tests.nas.losses.formulas import logits, targets

OPTIONS: dict[str, dict[str, object]] = {"skd": {"alpha": 0.5, "temperature": 2.0}, "uskd": {"feature_ch": 3, "classes": 5}}
LOGIT_LOSSES = [name for name, method in LOSSES.items() if method.needs in ("teacher", "online")]
LEARNING = [name for name, method in LOSSES.items() if method.needs != "landmarks"]


def module(name: str) -> nn.Module:
    torch.manual_seed(0)
    return LOSSES[name].module(**OPTIONS.get(name, {})).double()


def second(method: Method, teacher: Tensor) -> Tensor:
    """What the loss takes beside logits and target: the teacher's logits, or a feature map."""
    return teacher if method.needs != "feature" else teacher[:, :3, None, None].expand(-1, -1, 2, 2).contiguous()


def loss(name: str, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """The loss's value as a scalar, the student's part where there are two."""
    found = module(name).to(student.dtype)(student, second(LOSSES[name], teacher), target)
    value: Tensor = found[0] if isinstance(found, tuple) else found
    return value


@pytest.mark.parametrize("name", LEARNING)
def test_gradient_is_exact(name: str) -> None:
    teacher, target = logits(seed=5), targets()
    # uskd's soft target labels follow the student and are held fixed: their gradient is tested in closed form
    options = OPTIONS.get(name, {}) | ({"alpha": 0.0} if name == "uskd" else {})
    made, given = LOSSES[name].module(**options).double(), second(LOSSES[name], teacher)

    def value(student: Tensor) -> Tensor:
        found = made(student, given, target)
        part: Tensor = found[0] if isinstance(found, tuple) else found
        return part

    assert torch.autograd.gradcheck(value, logits(seed=6).requires_grad_())


@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    teacher = logits(seed=5).requires_grad_()
    torch.autograd.backward(loss(name, logits(seed=6).requires_grad_(), teacher, targets()))
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LEARNING)
def test_logits_of_ten_thousand_stay_finite(name: str, dtype: torch.dtype) -> None:
    student = (logits(seed=6).sign() * 1e4).to(dtype).requires_grad_()
    value = loss(name, student, (logits(seed=5).sign() * 1e4).to(dtype), targets())
    torch.autograd.backward(value)
    assert student.grad is not None
    assert bool(value.isfinite())
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("name", LEARNING)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    student, teacher, target, order = logits(seed=6), logits(seed=5), targets(), torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(loss(name, student, teacher, target), loss(name, student[order], teacher[order], target[order]), rtol=1e-12)


@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_constant_added_to_all_logits_changes_nothing(name: str) -> None:
    student, teacher, target = logits(seed=6), logits(seed=5), targets()
    assert torch.allclose(loss(name, student, teacher, target), loss(name, student + 7, teacher - 3, target), rtol=1e-9)


@pytest.mark.parametrize("name", LEARNING)
def test_two_classes_are_enough(name: str) -> None:
    options = OPTIONS.get(name, {}) | ({"classes": 2, "feature_ch": 2} if name == "uskd" else {})
    made = LOSSES[name].module(**options).double()
    student, teacher, target = logits(classes=2, seed=6), logits(classes=2, seed=5), targets(classes=2)
    given = teacher if name != "uskd" else teacher[:, :, None, None]
    found = made(student, given, target)
    assert bool((found[0] if isinstance(found, tuple) else found).isfinite())


@pytest.mark.parametrize("name", LEARNING)
def test_steps_downhill_lower_the_loss(name: str) -> None:
    student, teacher, target = logits(seed=6).requires_grad_(), logits(seed=5), targets()
    made = module(name)
    values = []
    for _ in range(40):
        found = made(student, second(LOSSES[name], teacher), target)
        value = found[0] if isinstance(found, tuple) else found
        values.append(float(value.detach()))
        (slope,) = torch.autograd.grad(value, student)
        with torch.no_grad():
            student -= 0.05 * slope
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", LOGIT_LOSSES)
def test_student_follows_the_teachers_ranking(name: str) -> None:
    student, teacher = logits(seed=6, scale=0.1).requires_grad_(), logits(seed=5)
    made, teacher_best = module(name), teacher.argmax(1)
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(300):
        found = made(student, teacher, teacher_best)
        optimizer.zero_grad()
        (found[0] if isinstance(found, tuple) else found).backward()
        optimizer.step()
    assert torch.equal(student.detach().argmax(1), teacher_best)
