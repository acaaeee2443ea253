"""A finished latency table: what any network of its space takes on its device, in microseconds of work and without the device."""

import functools
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np

from latency.calibration import Calibration, estimates_ms, fit_calibration, piece_terms, total_terms
from latency.errors import Failed, InvalidTable, MissingPieces
from latency.levelling import levelled
from latency.measurement import DeviceInfo
from latency.plan import TimingPlan
from latency.predictor import Guess, Predictor, fit_predictor
from latency.table_record import AGAIN, Calibrated, Record, Timing, read
from latency.table_text import command, lacking
from search_spaces.architecture import Architecture, Piece, pieces

__all__ = ["Drift", "Estimate", "LatencyTable", "anchor_ms", "calibrated", "networks_ms", "open_table", "pieces_ms"]

CONDITIONS = ("threads", "cores", "provider", "precision", "opt_level")  # of a plan: another makes another latency
ANY = ("governor", "timer_ns", "kernel")  # of a device: they may be others
DRIFTED = 0.03

Chain = tuple[Piece, ...]
_Item = TypeVar("_Item", Architecture, Piece)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A latency that was not measured, with the 90 % prediction interval of a measurement; ``source`` says where it comes from.

    ``predicted_share``: the part of the pieces' time that no one measured but the predictor guessed.
    """

    ms: float
    low_ms: float
    high_ms: float
    source: Literal["table", "table and predictor"] = "table"
    predicted_share: float = 0.0


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How pieces timed once more at the end differ from before: median of the changes and of their sizes, the anchors divided out."""

    pieces: int
    change: float
    size: float

    @property
    def is_large(self) -> bool:
        """Whether the table is to be distrusted: the median size is above 3 %."""
        return self.size > DRIFTED


class LatencyTable:
    """Latencies of networks made of a table's pieces; everything is as measured on its device under its plan.

    With ``predict`` a piece that was not measured is guessed from those that were, in networks of the table's own input size; not one
    that the device could not run, nor one of a kind that the table has none of (an op with another activation, a larger kernel).
    """

    def __init__(self, record: Record, *, predict: bool = False) -> None:
        """Take a record that ``build`` has finished.

        Args:
            record: read from the table's file.
            predict: whether pieces that were not measured are guessed where a call does not say.

        Raises:
            InvalidTable: the table is not finished.
        """
        if record.calibration is None:
            state = "was calibrated by an earlier version" if record.of(Calibrated) else "is not finished"
            raise InvalidTable(f"{record.path} {state}: run {command(record)}")
        self.record, self.calibration = record, record.calibration
        self.pieces_ms = pieces_ms(record)
        self._terms = {piece: piece_terms(piece, ms) for piece, ms in self.pieces_ms.items()}
        self._predict = predict
        self._guesses: dict[Piece, Guess] = {}  # as far as they were asked for

    def estimate(self, arch: Architecture, *, predict: bool | None = None) -> Estimate:
        """The network's latency; see ``estimate_many``."""
        return self.estimate_many([arch], predict=predict)[0]

    def estimate_many(self, archs: Sequence[Architecture], *, predict: bool | None = None) -> list[Estimate]:
        """The latency of each network at batch 1.

        Args:
            archs: the networks.
            predict: whether to guess pieces that were not measured; None: as the table was opened.

        Raises:
            MissingPieces: it has no estimate of some pieces (``missing``).
        """
        if not archs:
            return []
        predicts, made_of = self._predict if predict is None else predict, [pieces(arch) for arch in archs]
        if unknown := self._missing(made_of, predicts=predicts):
            inputs = [chain[0].in_chw for chain in made_of]
            raise MissingPieces(lacking(self.record, unknown, inputs, predicts=predicts), tuple(unknown))
        guesses = self._guessed({p for chain in made_of for p in chain if p not in self._terms})
        terms = self._terms | {p: piece_terms(p, g.ms) for p, g in guesses.items()} if guesses else self._terms
        totals = total_terms([[terms[p] for p in chain] for chain in made_of])
        centres = estimates_ms(self.calibration.coefficients, totals)
        return [self._estimate(float(ms), chain, guesses) for ms, chain in zip(centres, made_of, strict=True)]

    def missing(self, archs: Iterable[Architecture], *, predict: bool | None = None) -> tuple[Piece, ...]:
        """The pieces of these networks, each once, for which it has no estimate: with ``predict`` those that it cannot guess either."""
        return tuple(self._missing(map(pieces, archs), predicts=self._predict if predict is None else predict))

    def can_guess(self, piece: Piece) -> bool:
        """Whether a piece that was not measured can be predicted, in networks of the input that the table is of."""
        if piece in self._guesses:
            return True
        return piece not in self.record.unable and self.predictor is not None and self.predictor.covers(piece)

    def require(self, device: DeviceInfo, plan: TimingPlan) -> None:
        """Refuses another device, runtime, or plan whose latencies are others. Another kernel is not refused, see ``other_kernel``.

        Raises:
            InvalidTable: names the first difference.
        """
        conditions = self.record.conditions
        there, here = msgspec.to_builtins(conditions.plan), msgspec.to_builtins(plan)
        for name, was, now in (
            *((name, getattr(conditions.device, name), getattr(device, name)) for name in DeviceInfo.__struct_fields__),
            *((name, there[name], here[name]) for name in CONDITIONS if name in here),
        ):
            if was != now and name not in ANY:
                raise InvalidTable(
                    f"{self.record.path} was measured with {name} {_plain(was)} and this is {_plain(now)}: their latencies differ; "
                    "build a table for it with python -m latency.build_table"
                )

    @functools.cached_property
    def drift(self) -> Drift | None:
        """What the pieces that were timed once more say; None if there are none."""
        changes = [
            goes[AGAIN].ratio / statistics.median(t.ratio for go, t in goes.items() if go != AGAIN) - 1
            for goes in self.record.pieces.values()
            if AGAIN in goes and len(goes) > 1
        ]
        if not changes:
            return None
        return Drift(pieces=len(changes), change=statistics.median(changes), size=statistics.median(map(abs, changes)))

    @functools.cached_property
    def predictor(self) -> Predictor | None:
        """The model of pieces that were not measured, fitted when it is first asked for (seconds); None: the table is too small for one."""
        return fit_predictor(self.pieces_ms)

    def _missing(self, made_of: Iterable[Chain], *, predicts: bool) -> list[Piece]:
        found: dict[Piece, None] = {}
        for chain in made_of:
            # The calibration is of one input size; what it makes of others' pieces nobody has seen.
            is_alike = predicts and chain[0].in_chw == self.record.conditions.input_chw
            found |= {p: None for p in chain if p not in self._terms and not (is_alike and self.can_guess(p))}
        return list(found)

    def _guessed(self, unknown: Collection[Piece]) -> dict[Piece, Guess]:
        if new := [p for p in unknown if p not in self._guesses]:
            assert self.predictor is not None, "pieces without a predictor are missing"
            self._guesses |= zip(new, self.predictor.guess(new), strict=True)
        return {p: self._guesses[p] for p in unknown}

    def _estimate(self, ms: float, chain: Chain, guesses: Mapping[Piece, Guess]) -> Estimate:
        """The calibration's interval, and in proportion to the share that was guessed the guesses' own beside it."""
        ratio = self.calibration.ratio_90
        if not any(p in guesses for p in chain):
            return Estimate(ms=ms, low_ms=ms / ratio, high_ms=ms * ratio)
        guessed = [guesses[p] for p in chain if p in guesses]
        total_ms = sum(guesses[p].ms if p in guesses else self.pieces_ms[p] for p in chain)
        ratio *= 1 + sum(g.ms * (g.ratio_90 - 1) for g in guessed) / total_ms
        share = sum(g.ms for g in guessed) / total_ms
        return Estimate(ms=ms, low_ms=ms / ratio, high_ms=ms * ratio, source="table and predictor", predicted_share=share)


def open_table(path: str | Path, *, predict: bool = False) -> LatencyTable:
    """The table in a file that ``python -m latency.build_table`` wrote; with ``predict`` it guesses pieces that it lacks.

    Raises:
        InvalidTable: no table, or one that is not finished.
    """
    return LatencyTable(read(Path(path)), predict=predict)


def calibrated(record: Record) -> Calibration:
    """The calibration that a record's networks give.

    Raises:
        Failed: the device could run none to fit to, or none to judge by.
    """
    known = pieces_ms(record)
    networks = networks_ms(record, anchor_ms(record))
    uses: dict[str, tuple[list[list[tuple[float, ...]]], list[float]]] = {"fit": ([], []), "held out": ([], [])}
    for arch, (use, _) in record.networks.items():
        if all(p in known for p in pieces(arch)):
            uses[use][0].append([piece_terms(p, known[p]) for p in pieces(arch)])
            uses[use][1].append(networks[arch])
    if not all(measured for _, measured in uses.values()):
        why = next(iter(record.unable.values()), "ask for more of them")
        few = f"{len(record.networks)} whole networks, too few to calibrate {record.path} by"
        raise Failed(f"{record.conditions.device.name} ran {few}: {why}")
    fit, held_out = ((total_terms(terms), np.array(measured)) for terms, measured in uses.values())
    return fit_calibration(fit, held_out)


def pieces_ms(record: Record) -> dict[Piece, float]:
    """What each piece takes, from all of its goes, at the speed that the device has on the whole, as the anchors show it."""
    return _levelled_ms(record.pieces, anchor_ms(record))


def anchor_ms(record: Record) -> float:
    """The anchors' median over all batches."""
    found = {t.anchor_ms for goes in record.pieces.values() for go, t in goes.items() if go != AGAIN}
    return statistics.median(found)


def networks_ms(record: Record, reference_ms: float) -> dict[Architecture, float]:
    """What each whole network takes on a device whose anchors take ``reference_ms``."""
    return _levelled_ms({arch: goes for arch, (_, goes) in record.networks.items()}, reference_ms)


def _levelled_ms(timed: Mapping[_Item, Mapping[int, Timing]], reference_ms: float) -> dict[_Item, float]:
    """``levelled`` over all goes but ``AGAIN``; what was timed beside the same anchors was timed in one batch."""
    goes = {item: [((go, t.anchor_ms), t.ratio) for go, t in each.items() if go != AGAIN] for item, each in timed.items()}
    ratios = levelled({item: pairs for item, pairs in goes.items() if pairs})
    return {item: reference_ms * ratio for item, ratio in ratios.items()}


def _plain(value: object) -> str:
    return repr(value) if isinstance(value, str) else str(value)
