import time
from dataclasses import replace
from pathlib import Path

import msgspec

from latency.console import open_console
from nas.announcing import MEASURING_S, STARTING_S, _final_seconds
from nas.bench import open_bench, samples
from nas.config import config_from_file
from nas.forecast import measured_speed
from nas.store import RunFolder
from tests.nas.small import rows


def test_full_trainings_that_are_done_or_taken_over_take_no_more_time(finished: Path) -> None:
    config = msgspec.structs.replace(config_from_file(finished / "config.json", {}), final_epochs=10_000)
    every = tuple(rows(finished))
    done, searched = (RunFolder(path=finished, rows=r) for r in (every, tuple(r for r in every if r.stage == "search")))
    with open_bench(config, finished, open_console(), began=time.monotonic()) as bench:
        taken = {r.id: msgspec.structs.replace(r, epochs=10_000) for r in every if r.stage == "final"}
        reusing, speed = replace(bench, reuses=taken), measured_speed(samples(bench), bench.task, 16)
        after, before, reused = (_final_seconds(b, f, [], speed, 0) for b, f in ((bench, done), (bench, searched), (reusing, searched)))
    assert before > after >= MEASURING_S + STARTING_S
    assert reused == after
