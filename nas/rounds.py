"""The search itself, as a source of jobs: propose a round, price it, measure it on the device, hand out what is left to train."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from latency import Failed
from nas import objective
from nas.config import RunConfig
from nas.cost import count
from nas.errors import Stopped
from nas.jobs import DONE, Done, Job, Outcome, recipe_for
from nas.measuring import Latencies, Priced
from nas.proposals import Proposals
from nas.samplers import proposal_seed
from nas.screening import near_the_front
from nas.store import BANK_FILE, Candidate, RunFolder, by_number
from search_spaces.architecture import Architecture, Head
from search_spaces.stage import Picks

__all__ = ["SearchRounds"]

FAILURES_IN_A_ROW = 3
PROPOSALS_PER_TRIAL = 10  # the bound on rejected and repeated proposals


class Decoder(Protocol):
    """What turns picks into architectures, such as a ``SearchSpace``."""

    def decode(self, picks: Picks, head: Head) -> Architecture:
        """The architecture of a full set of picks."""
        ...


class SearchRounds:
    """The jobs of a search (a ``JobSource``). Rounds are fixed ranges of proposal numbers, so a resumed search has the same ones.

    A round is opened once the one before it (with ``overlap``: the one before that) is finished and told, in number
    order. Without ``overlap`` nothing trains while the device measures.
    """

    def __init__(
        self,
        *,
        config: RunConfig,
        space: Decoder,
        head: Head,
        folder: RunFolder,
        proposals: Proposals,
        meter: Latencies,
        excess: Callable[[float], float] | None = None,
        proposals_per_trial: int = PROPOSALS_PER_TRIAL,
        overlap: bool = False,
        reserve_s: Callable[["SearchRounds"], float] = lambda rounds: 0.0,
        deadline: float | None = None,
        on_row: Callable[[Candidate], None] = lambda row: None,
    ) -> None:
        """``excess`` of a latency in ms: above 0 is infeasible; None: that of ``max_ms``. ``proposals`` are told by the same."""
        self.config, self.rows = config, dict(by_number(folder.rows))
        self._space, self._head, self._folder, self._proposals = space, head, folder, proposals
        self._meter, self._lag = meter, 1 if overlap else 0
        self._excess, self._most = excess or partial(objective.excess, config), config.trials * proposals_per_trial
        self._reserve_s, self._deadline, self._on_row = reserve_s, deadline, on_row
        self._round = 0
        self._queue: deque[Job] = deque()
        self._pending: dict[str, Candidate] = {}  # job key (an architecture's id) → its row so far
        self._twins: dict[str, list[Candidate]] = {}  # the same architecture proposed again before it was trained
        self._out = 0
        self._failures = {"measuring": 0, "training": 0}  # in a row, counted apart: a round is measured before any of it is trained
        self._by_id = {r.id: r for r in self.rows.values() if r.duplicate_of is None}
        meter.take_up([self.rows[n] for n in sorted(self.rows)])
        self.stopped = ""  # why the search ended before its trials, if it did

    def next(self) -> Job | Done | None:
        """The next network to train; see ``JobSource``."""
        while not self._queue:
            if self._out and (self._lag == 0 or self._behind() > self._lag):
                return None
            if self._ended():
                if self._out:
                    return None
                self._tell_below(len(self._proposals))
                return DONE
            self._open_round()
        if self._late():
            self._queue.clear()
            if self._out:
                return None
            self._look_closer(len(self._proposals))
            return DONE
        self._out += 1
        return self._queue.popleft()

    def finish(self, job: Job, outcome: Outcome) -> None:
        """Stores what became of a job, and answers its twins.

        Raises:
            Stopped: the third failure in a row, or a reason to stop that is no fault of the network.
        """
        self._out -= 1
        if outcome.stop:
            raise Stopped(outcome.stop)
        draft = self._pending.pop(job.key)
        if outcome.error:
            row = msgspec.structs.replace(draft, status="failed", error=outcome.error, seconds=outcome.seconds)
        else:
            weights = "" if job.bank else str(Path(job.weights).relative_to(self._folder.path.resolve()))
            row = msgspec.structs.replace(
                draft, status="trained", score=outcome.score, score_source="inherited" if job.bank else "alone", seconds=outcome.seconds,
                weights=weights, calibration=outcome.calibration and msgspec.structs.replace(outcome.calibration, bins=()),
            )  # fmt: skip
        self._store(row)
        self._answer_twins(row)

    @property
    def trained(self) -> int:
        """How many candidates were trained, or failed in training; those that the device cannot run come on top.

        One that was trained on an estimate counts even where measuring it showed it to be over the limit: its time was spent.
        """
        firsts = [r for r in self.rows.values() if r.duplicate_of is None]
        return sum(r.score is not None or (r.status in ("trained", "failed") and r.latency is not None) for r in firsts)

    def _behind(self) -> int:
        """Rounds between the next one and the oldest that still trains."""
        oldest = min((r.number or 0 for r in self._pending.values()), default=self._round * self.config.round_size)
        return self._round - oldest // self.config.round_size

    def _late(self) -> bool:
        late = self._deadline is not None and time.monotonic() + self._reserve_s(self) > self._deadline
        if late:
            self.stopped = "the budget's time for searching is used"
        return late

    def _ended(self) -> bool:
        if len(self.rows) >= self._most:
            self.stopped = f"{len(self.rows)} proposals gave {self.trained} candidates to train: the rest were repeated or over --max-ms"
        return self.trained + len(self._pending) >= self.config.trials or bool(self.stopped) or self._late()

    def _tell_below(self, number: int) -> None:
        self._look_closer(number)
        for n in sorted(n for n in self.rows if n < number):
            row = self.rows[n]
            first = row if row.duplicate_of is None else self.rows[row.duplicate_of]  # may have been measured since
            self._proposals.tell(msgspec.structs.replace(row, latency=first.latency))

    def _look_closer(self, number: int) -> None:
        """Measures those of the finished candidates below ``number`` that a table's estimate leaves near the front of all of them."""
        while near := near_the_front(self.config, [self.rows[n] for n in sorted(self.rows) if n < number]):
            found = self._meter.look_closer([r.arch for r in near])
            rows = [_measured(self._excess, row, result) for row, result in zip(near, found, strict=True)]
            self._folder.append(*rows)
            self.rows |= {r.number: r for r in rows if r.number is not None}
            self._by_id |= {r.id: r for r in rows}

    def _open_round(self) -> None:
        size = self.config.round_size
        numbers = range(self._round * size, (self._round + 1) * size)
        self._tell_below(numbers[0] - self._lag * size)
        self._round += 1
        drafts = []
        for n in numbers:
            known = self.rows.get(n)
            picks = self._proposals.picks(n, known.picks if known else None)
            if known is None:
                drafts.append(self._draft(n, picks))
        self._price([d for d in drafts if not self._repeated(d)])

    def _draft(self, number: int, picks: Mapping[str, str | int | float]) -> Candidate:
        return Candidate(
            stage="search", status="failed", arch=self._space.decode(picks, self._head), number=number, picks=dict(picks),
            seed=proposal_seed(self.config.seed, number), epochs=self.config.epochs if self.config.evaluate == "alone" else 0,
        )  # fmt: skip

    def _repeated(self, draft: Candidate) -> bool:
        if first := self._by_id.get(draft.id):
            self._store(_duplicate(draft, first))
            return True
        if draft.id in self._pending:
            self._twins.setdefault(draft.id, []).append(draft)
            return True
        self._pending[draft.id] = draft
        return False

    def _price(self, drafts: list[Candidate]) -> None:
        """Cost, then latency, then the queue: what is too slow or cannot run is stored at once, and never trained."""
        for draft, result in zip(drafts, self._meter.price([d.arch for d in drafts], self.config.max_ms), strict=True):
            if isinstance(result, Failed):
                self._settle(msgspec.structs.replace(draft, error=f"{self._meter.device.info().name}: {result}"))
                continue
            self._failures["measuring"] = 0
            priced = msgspec.structs.replace(draft, cost=count(draft.arch), latency=result.latency, latency_source=result.source)
            if self._excess(result.latency.p50_ms) > 0:
                self._settle(msgspec.structs.replace(priced, status="infeasible", epochs=0))
            elif self.trained + len(self._queue) + self._out < self.config.trials:
                self._pending[draft.id] = priced
                self._queue.append(self._job(priced))
            else:  # the last round is longer than the trials that are left
                del self._pending[draft.id]
                self._twins.pop(draft.id, None)

    def _settle(self, row: Candidate) -> None:
        del self._pending[row.id]
        self._store(row)
        self._answer_twins(row)

    def _answer_twins(self, row: Candidate) -> None:
        for twin in self._twins.pop(row.id, []):
            self._store(_duplicate(twin, row))
        if max(self._failures.values()) >= FAILURES_IN_A_ROW:
            reason = row.error.strip().splitlines()[-1]
            raise Stopped(f"{FAILURES_IN_A_ROW} candidates in a row failed, the last with: {reason}; tracebacks are in candidates.jsonl")

    def _job(self, row: Candidate) -> Job:
        folder = self._folder.path.resolve()
        return Job(
            key=row.id, arch=row.arch, recipe=recipe_for(self.config, self.config.epochs), seed=row.seed,
            weights=str(folder / "weights" / f"{row.id}.safetensors"),
            bank=str(folder / BANK_FILE) if self.config.evaluate == "inherited" else "",
        )  # fmt: skip

    def _store(self, row: Candidate) -> None:
        assert row.number is not None, "the search stores proposals"
        self._folder.append(row)
        self.rows[row.number] = row
        if row.duplicate_of is None:
            self._by_id[row.id] = row
            if row.status == "failed":
                self._failures["training" if row.latency else "measuring"] += 1
            elif row.status == "trained":
                self._failures["training"] = 0
        self._on_row(row)


def _measured(excess: Callable[[float], float], row: Candidate, result: Priced | Failed) -> Candidate:
    """The row of a candidate that was trained on an estimate, with its measured latency."""
    if isinstance(result, Failed):
        return msgspec.structs.replace(row, status="failed", latency=None, latency_source="", error=str(result))
    status = "infeasible" if excess(result.latency.p50_ms) > 0 else "trained"
    return msgspec.structs.replace(row, status=status, latency=result.latency, latency_source=result.source)


def _duplicate(row: Candidate, first: Candidate) -> Candidate:
    """The row of a proposal that was seen before: everything measured comes from the first."""
    return msgspec.structs.replace(
        row, status="duplicate" if first.status != "failed" else "failed", cost=first.cost, latency=first.latency,
        latency_source="store" if first.latency else "", score=first.score, score_source="store" if first.score is not None else "",
        epochs=first.epochs, duplicate_of=first.number, error=f"the same as proposal {first.number}, which failed" if first.error else "",
    )  # fmt: skip
