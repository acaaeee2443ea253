"""Studies without networks: proposals from made-up menus, answered by a formula."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import optuna

from nas.config import RunConfig
from nas.proposals import Proposals
from nas.store import Candidate, Latency
from search_spaces import Architecture, Block, Head, Pick, Picks

MENUS: Mapping[str, tuple[Pick, ...]] = {
    "a.op": ("conv", "sepconv", "mbconv3"), "a.width": (0.5, 1.0, 2.0), "b.kernel": (3, 5), "b.depths": (-1, 0, 1), "c.se": (0.0, 0.25),
}  # fmt: skip
ROUND = 4
ARCH = Architecture(input_chw=(3, 8, 8), blocks=(Block(op="conv", in_ch=3, out_ch=8),), head=Head(outputs=2))
Rows = dict[int, Candidate]
Answer = Callable[[int, Picks], Candidate]


def study_config(**changed: Any) -> RunConfig:  # Any: values of any field
    fields: dict[str, Any] = {"trials": 24, "round_size": ROUND, "sampler": "random"} | changed
    return RunConfig(**fields)


def row(number: int, picks: Picks, **fields: Any) -> Candidate:  # Any: values of any field
    plain = Candidate(stage="search", status="trained", arch=ARCH, seed=0, number=number, picks=dict(picks))
    return msgspec.structs.replace(plain, **fields)


def at(ms: float) -> Latency:
    return Latency(p50_ms=ms, low_ms=ms, high_ms=ms)


def answered(number: int, picks: Picks) -> Candidate:
    """A score and a latency that both rise with the width and the depth; one kernel and op are better than the others."""
    width, depth = float(picks["a.width"]), int(picks["b.depths"])
    score = 0.3 + 0.1 * width + 0.05 * depth + 0.1 * (picks["b.kernel"] == 5) + 0.2 * (picks["a.op"] == "mbconv3")
    return row(number, picks, score=score, latency=at(1.0 + width + 0.5 * depth))


def proposed(
    config: RunConfig, journal: Path, rows: Rows, rounds: int, answer: Answer = answered, menus: Mapping[str, tuple[Pick, ...]] = MENUS
) -> list[Picks]:
    """The picks of so many rounds, as ``SearchRounds`` asks and tells without overlap; fills ``rows`` with what is missing."""
    proposals = Proposals(config, menus, journal)
    found: list[Picks] = []
    for number in range(rounds * config.round_size):
        if number % config.round_size == 0:
            for n in range(number):
                proposals.tell(rows[n])
        known = rows.get(number)
        picks = proposals.picks(number, known.picks if known else None)
        rows.setdefault(number, answer(number, picks))
        found.append(dict(picks))
    for n in range(len(found)):
        proposals.tell(rows[n])
    return found


def trials(journal: Path) -> list[optuna.trial.FrozenTrial]:
    """The study's trials as Optuna itself reads them."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    return optuna.load_study(study_name="search", storage=storage).get_trials()
