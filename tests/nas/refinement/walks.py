"""Refinements whose trainings are made up: proposals are answered by a formula, latencies come from the fake device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch

from latency import Device, open_device
from nas.config import RunConfig
from nas.cost import count
from nas.jobs import Done, Job, Outcome, open_config_task
from nas.measuring import Meter
from nas.models import build
from nas.refinement.bench import STEP_PLAN
from nas.refinement.part import Part
from nas.refinement.pricing import ByMacs, Pricing
from nas.refinement.record import open_record
from nas.refinement.settings import Refinement
from nas.refinement.steps import Steps
from nas.store import Candidate, Latency, RunFolder, read_rows
from nas.weights import save
from search_spaces import Architecture, Block, Head
from tests.nas.small import config

# wide at few blocks, so that the fake device's time is mostly multiply-accumulates
SEED = Architecture(
    input_chw=(3, 16, 16),
    blocks=(
        Block(name="stem", op="conv", in_ch=3, out_ch=48),
        Block(name="a", op="mbconv", in_ch=48, hidden_ch=256, out_ch=48, skip="identity"),
        Block(name="b", op="mbconv", in_ch=48, hidden_ch=256, out_ch=64),
    ),
    head=Head(outputs=3),
)
Answer = Callable[[Job], Outcome]


def by_size(job: Job) -> Outcome:
    """A score that falls with the width of block b only: shrinking anything else costs nothing."""
    return Outcome(key=job.key, score=0.5 + job.arch.blocks[-1].hidden_ch / 1000, seconds=1.0)


class Walk:
    """A refinement in a folder; opened again it goes on from what is there."""

    def __init__(
        self, folder: Path, *, target: float = 0.7, least_ms: float = 0.0, pricing: Pricing | None = None, slower: float = 1.0,
        device: Device | None = None, **changed: Any,  # Any: values of any field
    ) -> None:  # fmt: skip
        """``slower``: the device's speed when the path began, over that of now."""
        folder.mkdir(exist_ok=True)
        self.config: RunConfig = config(folder, train_images=60)
        self.task = open_config_task(self.config)
        self.out = folder / "run"
        fields: dict[str, Any] = {"seed_id": SEED.id, "origin": "made up", "target_ratio": target, "delta": 0.05}
        self.settings = Refinement(**(fields | changed))
        self.said: list[str] = []
        self.least_ms, self.pricing, self.slower = least_ms, pricing or ByMacs(), slower
        self.device = device or open_device("fake")
        self.meter = Meter(self.device, STEP_PLAN)

    def steps(self) -> Steps:
        """The source, opened anew."""
        for name in ("weights", "models"):
            (self.out / name).mkdir(parents=True, exist_ok=True)
        rows = read_rows(self.out / "candidates.jsonl")
        if not rows:
            save(build(SEED, generator=torch.Generator().manual_seed(0)).state_dict(), self.out / "weights" / "seed.safetensors")
            rows = (self.seed_row(),)
            RunFolder(path=self.out, rows=()).append(*rows)
        seed_ms = rows[0].latency.p50_ms if rows[0].latency else 0.0
        return Steps(
            config=self.config, settings=self.settings, folder=RunFolder(path=self.out, rows=rows),
            record=open_record(self.out, self.settings), task=self.task, meter=self.meter, pricing=self.pricing,
            part=Part(held_out=18, steps=1, seed=0), target_ms=seed_ms * (self.settings.target_ratio or 1.0),
            delta_ms=self.settings.delta * seed_ms, least_ms=self.least_ms, say=self.said.append,
        )  # fmt: skip

    def seed_row(self) -> Candidate:
        latency = self.measured(SEED)
        begun = msgspec.structs.replace(latency, p50_ms=latency.p50_ms * self.slower)
        return Candidate(
            stage="refine", status="trained", arch=SEED, seed=0, cost=count(SEED), latency=begun, latency_source="measured",
            score=0.9, score_source="short", weights="weights/seed.safetensors",
        )  # fmt: skip

    def measured(self, arch: Architecture) -> Latency:
        from latency.onnx_graph import emit

        (measurement,) = self.device.time([emit(arch)], STEP_PLAN)
        return Latency.of(measurement)

    def go(self, steps: Steps, answer: Answer = by_size, *, most: int = 10_000) -> int:
        """Hands out jobs and answers them until the path ends or so many are done; how many it answered."""
        for answered in range(most):
            job = steps.next()
            if isinstance(job, Done):
                return answered
            assert job is not None
            outcome = answer(job)
            if not outcome.error:
                save(build(job.arch, generator=torch.Generator().manual_seed(1)).state_dict(), job.weights)
            steps.finish(job, outcome)
        return most
