"""How long is a training step in bf16 beside one in fp32 on this computer's CPU? In turns, in one process, with one thread.

python benchmarks/precision.py [--rounds 7] [--seconds 1] [--out benchmarks]

Networks at 32 px, batch 64, on made-up photographs. Each round times steps of both (the median of at least three that take ``--seconds``);
a ratio is that of a round, told as the median over the rounds with the lowest and the highest. Writes precision.md: what
``Recipe.amp = "auto"`` rests on, so run it anew on a kind of CPU that is not in the table.
"""

import argparse
import statistics
from datetime import UTC, datetime
from pathlib import Path

from latency import open_device
from nas.cores import become_worker
from nas.models import build
from nas.recipe import Recipe
from nas.tasks import open_task
from nas.train import timed_steps
from search_spaces.baselines import baseline

NETWORKS = (("mobilenet_v2", 0.35), ("mobilenet_v2", 1.0), ("mobilenet_v3_small", 1.0), ("mnasnet_a1", 0.35))


def main() -> None:
    """Time both on each network, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    given = parser.parse_args()
    become_worker()
    device = open_device("local")
    info = device.info()
    device.close()
    task = open_task("classify", "photos", train_images=640, valid_images=50, image_size=32)
    lines = []
    for name, width in NETWORKS:
        network = build(baseline(name, width=width, input_chw=(3, 32, 32), outputs=len(task.classes)))
        times: dict[str, list[float]] = {"off": [], "bf16": []}
        for _ in range(given.rounds):
            for amp, found in times.items():
                found.append(timed_steps(network, task, Recipe(amp="off" if amp == "off" else "bf16"), seconds=given.seconds, device="cpu"))
        ratios = [b / a for a, b in zip(times["off"], times["bf16"], strict=True)]
        fp32_ms, bf16_ms = (1000 * statistics.median(found) for found in times.values())
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"| {name} x{width:g} | {fp32_ms:.0f} ms | {bf16_ms:.0f} ms | **{statistics.median(ratios):.2f}** ({spread}) |\n")
    text = (
        "# A training step in bf16 beside one in fp32\n\n"
        f"`python benchmarks/precision.py --rounds {given.rounds} --seconds {given.seconds:g}`, {datetime.now(UTC).date()}, "
        f"{info.name} with "
        f"{', '.join(i for i in info.isa if i.startswith(('amx', 'avx512'))) or 'neither AVX-512 nor AMX'}; "
        "32 px, batch 64, one thread; ratio: bf16 over fp32 in the same round, median (lowest to highest); above 1, bf16 is slower.\n\n"
        "| network | fp32 | bf16 | ratio |\n|---|---|---|---|\n" + "".join(lines)
    )
    (given.out / "precision.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
