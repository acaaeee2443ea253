"""Steps on parts of tensors against torch's own optimizers and hand arithmetic."""

from collections.abc import Mapping

import msgspec
import pytest
import torch
from torch import Tensor

from nas.recipe import Recipe
from nas.sharing.slices import Gradient, SliceOptimizer, clip, merged

RECIPES = {
    "sgd": Recipe(optimizer="sgd", weight_decay=0.01),
    "adamw": Recipe(optimizer="adamw", weight_decay=0.01),
}


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def torchs(weight: Tensor, gradients: list[Tensor], recipe: Recipe, lr: float) -> Tensor:
    """The weight after torch's optimizer took these steps."""
    parameter = torch.nn.Parameter(weight.clone())
    decay = recipe.weight_decay if weight.ndim > 1 else 0.0
    optimizer: torch.optim.Optimizer = torch.optim.SGD([parameter], lr=lr, momentum=recipe.momentum, nesterov=True, weight_decay=decay)
    if recipe.optimizer == "adamw":
        optimizer = torch.optim.AdamW([parameter], lr=lr, betas=(recipe.momentum, 0.999), weight_decay=decay)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def everything(bank: Mapping[str, Tensor], optimizer: SliceOptimizer) -> dict[str, Tensor]:
    """Copies of the weight "w" and of all its moments."""
    return {"w": bank["w"].clone(), **{kind: moment["w"].clone() for kind, moment in optimizer.moments.items()}}


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (6,)], ids=["kernel", "bias"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_steps_on_whole_tensors_are_torchs(recipe: Recipe, shape: tuple[int, ...]) -> None:
    weight, gradients = drawn(*shape, seed=0), [drawn(*shape, seed=s) for s in range(1, 6)]
    bank = {"w": weight.clone()}
    optimizer = SliceOptimizer(bank, recipe)
    for gradient in gradients:
        optimizer.step(bank, {"w": Gradient(value=gradient)}, 0.1)
    torch.testing.assert_close(bank["w"], torchs(weight, gradients, recipe, 0.1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_steps_on_a_slice_are_torchs_on_a_tensor_of_its_own(recipe: Recipe) -> None:
    weight, gradients = drawn(6, 4, 5, 5, seed=0), [drawn(3, 2, 3, 3, seed=s) for s in range(1, 6)]
    bank = {"w": weight.clone()}
    optimizer = SliceOptimizer(bank, recipe)
    for gradient in gradients:
        optimizer.step(bank, {"w": Gradient(value=gradient)}, 0.1)
    want = torchs(weight[:3, :2, 1:4, 1:4], gradients, recipe, 0.1)
    torch.testing.assert_close(bank["w"][:3, :2, 1:4, 1:4], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_nothing_outside_a_slice_moves_though_it_has_momentum_and_decay(recipe: Recipe) -> None:
    bank = {"w": drawn(6, 4, 5, 5, seed=0)}
    optimizer = SliceOptimizer(bank, recipe)
    optimizer.step(bank, {"w": Gradient(value=drawn(6, 4, 5, 5, seed=1))}, 0.1)
    before = everything(bank, optimizer)
    optimizer.step(bank, {"w": Gradient(value=drawn(3, 2, 3, 3, seed=2))}, 0.1)
    inside = torch.zeros(6, 4, 5, 5, dtype=torch.bool)
    inside[:3, :2, 1:4, 1:4] = True
    for kind, now in everything(bank, optimizer).items():
        assert torch.equal(now[~inside], before[kind][~inside])
        assert (now[inside] != before[kind][inside]).all()


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_tensor_without_a_gradient_does_not_move(recipe: Recipe) -> None:
    bank = {"w": drawn(4, 4, seed=0), "v": drawn(4, 4, seed=1)}
    optimizer = SliceOptimizer(bank, recipe)
    for gradients in ({"w": drawn(4, 4, seed=2), "v": drawn(4, 4, seed=3)}, {"v": drawn(4, 4, seed=4)}):
        before = everything(bank, optimizer)
        optimizer.step(bank, {name: Gradient(value=g) for name, g in gradients.items()}, 0.1)
    assert all(torch.equal(now, before[kind]) for kind, now in everything(bank, optimizer).items())


def test_adams_bias_is_corrected_by_an_elements_own_steps() -> None:
    """Two steps of all, then two of a part: the part has taken four steps, the rest two."""
    recipe = RECIPES["adamw"]
    weight, gradients = drawn(4, 4, seed=0), [drawn(4, 4, seed=s) for s in range(1, 5)]
    bank = {"w": weight.clone()}
    optimizer = SliceOptimizer(bank, recipe)
    for i, gradient in enumerate(gradients):
        optimizer.step(bank, {"w": Gradient(value=gradient if i < 2 else gradient[:2])}, 0.1)
    torch.testing.assert_close(bank["w"][:2], torchs(weight[:2], [g[:2] for g in gradients], recipe, 0.1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(bank["w"][2:], torchs(weight[2:], [g[2:] for g in gradients[:2]], recipe, 0.1), rtol=1e-5, atol=1e-6)


def test_rate_of_momentum_zero_is_plain_descent() -> None:
    bank = {"w": torch.tensor([1.0])}
    SliceOptimizer(bank, msgspec.structs.replace(RECIPES["sgd"], momentum=0.0)).step(bank, {"w": Gradient(value=torch.tensor([2.0]))}, 0.1)
    torch.testing.assert_close(bank["w"], torch.tensor([0.8]))


def test_one_gradient_is_taken_as_it_is() -> None:
    g = drawn(2, 3, seed=0)
    assert merged([g]).value is g
    assert merged([g]).mask is None


def test_gradients_of_one_tensor_are_summed_over_their_number() -> None:
    found = merged([torch.tensor([[4.0, 4.0], [4.0, 4.0]]), torch.tensor([[2.0]])])
    assert found.value.tolist() == [[3.0, 2.0], [2.0, 2.0]]
    assert found.mask is None


def test_gradient_for_a_smaller_kernel_is_added_in_its_centre() -> None:
    found = merged([torch.zeros(1, 1, 3, 3), torch.full((1, 1, 1, 1), 2.0)])
    assert found.value.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_corner_that_no_gradient_covers_is_left_out() -> None:
    """A wide and a tall part make an L: the element where both would reach is nobody's."""
    found = merged([torch.ones(1, 2), torch.ones(2, 1)])
    assert found.mask is not None
    assert found.mask.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_corner_that_no_gradient_covers_does_not_move(recipe: Recipe) -> None:
    bank = {"w": drawn(2, 2, seed=0)}
    optimizer = SliceOptimizer(bank, recipe)
    optimizer.step(bank, {"w": Gradient(value=drawn(2, 2, seed=1))}, 0.1)
    before = everything(bank, optimizer)
    optimizer.step(bank, {"w": merged([torch.ones(1, 2), torch.ones(2, 1)])}, 0.1)
    moved = {kind: (now != before[kind]).tolist() for kind, now in everything(bank, optimizer).items()}
    assert all(where == [[True, True], [True, False]] for where in moved.values())


@pytest.mark.parametrize("norm", [0.5, 50.0])
def test_clipping_is_torchs(norm: float) -> None:
    values = [drawn(3, 2, seed=0), drawn(4, seed=1)]
    parameters = [torch.nn.Parameter(torch.zeros_like(v)) for v in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = value.clone()
    torch.nn.utils.clip_grad_norm_(parameters, norm)
    clip([Gradient(value=v) for v in values], norm)
    for parameter, value in zip(parameters, values, strict=True):
        torch.testing.assert_close(parameter.grad, value)
