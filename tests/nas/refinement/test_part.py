import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nas.jobs import Job, run_job
from nas.models import build
from nas.recipe import Recipe
from nas.refinement.part import Part, parted
from nas.tasks import Task, open_task
from nas.tasks.dataset import Images
from nas.train import fit
from nas.weights import load, save
from search_spaces import Architecture, Block, Head
from tests.nas.tasks.samples import write_npz

PART = Part(held_out=20, steps=3, seed=5)
RECIPE = Recipe(batch=8, lr=0.05, crop_pixels=0)
ARCH = Architecture(input_chw=(3, 16, 16), blocks=(Block(op="conv", in_ch=3, out_ch=8, stride=2),), head=Head(outputs=3))


def closed() -> Images:
    raise AssertionError("the test split was opened")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    file = write_npz(tmp_path_factory.mktemp("part") / "small.npz", train=120, test=30)
    return dataclasses.replace(open_task("classify", f"npz:{file}"), test=closed)


def held_out_images(task: Task, part: Part) -> Images:
    return parted(task, RECIPE, part)[0].valid


def rows(images: Images) -> set[bytes]:
    return {x.tobytes() for x in images.x}


def test_images_to_train_on_and_to_score_on_are_different_training_images(task: Task) -> None:
    small, _ = parted(task, RECIPE, PART)
    assert not rows(small.train) & rows(small.valid)
    assert rows(small.train) | rows(small.valid) <= rows(task.train)
    assert not rows(small.valid) & rows(task.valid)


def test_held_out_images_are_the_same_whatever_the_draw_and_the_steps(task: Task) -> None:
    others = [msgspec.structs.replace(PART, draw=9), msgspec.structs.replace(PART, steps=100)]
    assert all(rows(parted(task, RECIPE, p)[0].valid) == rows(held_out_images(task, PART)) for p in (PART, *others))
    another = msgspec.structs.replace(PART, seed=6)
    assert rows(held_out_images(task, another)) != rows(held_out_images(task, PART))


def test_held_out_images_have_every_class_in_proportion(task: Task) -> None:
    assert sorted(np.bincount(held_out_images(task, PART).y)) == [6, 7, 7]


def test_equal_draws_see_the_same_images_and_others_do_not(task: Task) -> None:
    first, again, other = (rows(parted(task, RECIPE, msgspec.structs.replace(PART, draw=d))[0].train) for d in (1, 1, 2))
    assert first == again != other


STEPS = [(1, 1, 1), (3, 3, 1), (10, 10, 1), (11, 11, 1), (12, 12, 2), (25, 24, 3), (60, 60, 6)]


@pytest.mark.parametrize(("steps", "taken", "epochs"), STEPS)
def test_as_many_steps_are_taken_as_were_asked_for(task: Task, steps: int, taken: int, epochs: int) -> None:
    # 108 images to train on, 20 of them held out: 88 are 11 batches of 8
    assert len(task.train) == 108
    small, short = parted(task, RECIPE, msgspec.structs.replace(PART, steps=steps))
    result = fit(build(ARCH), small, short, seed=0)
    assert (result.steps, result.epochs) == (taken, epochs)


def test_batch_larger_than_the_data_is_one_step_an_epoch(task: Task) -> None:
    small, short = parted(task, msgspec.structs.replace(RECIPE, batch=512), PART)
    assert (len(small.train), short.epochs) == (88, 3)


def test_job_on_a_part_begins_with_given_weights_and_scores_on_held_out_images(task: Task, tmp_path: Path) -> None:
    start = build(ARCH)
    save(start.state_dict(), tmp_path / "start")
    frozen = msgspec.structs.replace(RECIPE, lr=1e-12, weight_decay=0.0)
    job = Job(
        key="a", arch=ARCH, recipe=frozen, seed=1, weights=str(tmp_path / "end"), init=str(tmp_path / "start"), part=PART,
    )  # fmt: skip
    outcome = run_job(job, task)
    assert outcome.error == ""
    assert outcome.score is not None
    assert round(outcome.score * 20) == pytest.approx(outcome.score * 20)  # a fraction of 20 images
    end = load(tmp_path / "end")
    assert all((end[k] - v).abs().max() < 1e-6 for k, v in start.state_dict().items() if k.endswith("conv.weight"))


def test_job_with_weights_of_another_network_fails_with_a_traceback(task: Task, tmp_path: Path) -> None:
    save(build(msgspec.structs.replace(ARCH, head=Head(outputs=4))).state_dict(), tmp_path / "start")
    job = Job(key="a", arch=ARCH, recipe=RECIPE, seed=1, weights=str(tmp_path / "end"), init=str(tmp_path / "start"), part=PART)
    assert "size mismatch for head.out.weight" in run_job(job, task).error
