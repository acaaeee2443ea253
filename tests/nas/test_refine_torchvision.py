"""The four torchvision networks through the whole verb, with their weights from a file in torchvision's layout."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import mnasnet, mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small

from nas.models import build
from nas.models.pretrained import from_torchvision
from nas.store import read_rows
from nas.weights import load
from tests.nas.small import write_inputs
from tests.nas.test_refine import refined

FLAGS = (
    "--device", "fake", "--target-ratio", 0.9, "--delta", 0.08, "--steps", 1, "--held-out", 18, "--final-epochs", 1, "--members", 1,
    "--kinds", "expansion,bottleneck,depth", "--executor", "serial",
)  # fmt: skip
MODELS: dict[str, Callable[[], nn.Module]] = {  # narrow: what is tested is the way, and not the time
    "mobilenet_v2": lambda: mobilenet_v2(weights=None, width_mult=0.25),
    "mnasnet1_0": lambda: mnasnet.MNASNet(0.25),
    "mobilenet_v3_large": lambda: mobilenet_v3_large(weights=None, width_mult=0.25),
    "mobilenet_v3_small": lambda: mobilenet_v3_small(weights=None, width_mult=0.25),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_network_is_refined_from_its_own_weights_after_it_has_learned_the_classes(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    theirs = MODELS[name]().state_dict()
    torch.save(theirs, tmp_path / "theirs.pth")
    out, data = tmp_path / "out", write_inputs(tmp_path)["data"]
    done = refined("--data", data, "--seed-model", f"torchvision:{name}:{tmp_path}/theirs.pth", *FLAGS, "--out", out)
    assert done.exit_code == 0, done.output

    arch, network = from_torchvision(name, theirs, input_chw=(3, 32, 32))
    begun, ours = load(out / "weights" / "seed.safetensors"), network.state_dict()
    same = {key for key in ours if begun[key].shape == ours[key].shape and torch.equal(begun[key], ours[key])}
    assert set(ours) - same == {"head.out.weight", "head.out.bias"}  # ImageNet's classes, in place of which are those of the data

    rows = read_rows(out / "candidates.jsonl")
    seed, *steps = [r for r in rows if r.stage == "refine"]
    assert (rows[0].score_source, rows[0].id, rows[0].weights) == ("tuned", seed.id, seed.weights)
    assert [b.name for b in seed.arch.blocks] == [b.name for b in arch.blocks]
    assert steps
    assert [r.parent_id for r in steps] == [r.id for r in (seed, *steps)[:-1]]
    last = build(steps[-1].arch)
    last.load_state_dict(load(out / steps[-1].weights))
    assert {r.score_source for r in rows if r.stage == "final" and r.id == steps[-1].id} == {"full", "tuned"}
