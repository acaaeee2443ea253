"""A finished latency table: what any network of its space takes on its device, in microseconds of work and without the device."""

import functools
import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import numpy as np

from latency.calibration import Calibration, estimates_ms, fit_calibration, piece_terms, total_terms
from latency.errors import Failed, InvalidTable, MissingPieces
from latency.levelling import levelled
from latency.measurement import DeviceInfo
from latency.plan import PLANS, TimingPlan
from latency.predictor import Predictor, fit_predictor
from latency.table_record import AGAIN, Record, Timing, read
from search_spaces.architecture import Architecture, Head, Piece, pieces

__all__ = ["Drift", "Estimate", "LatencyTable", "anchor_ms", "calibrated", "command", "networks_ms", "open_table", "pieces_ms"]

CONDITIONS = ("threads", "cores", "provider", "precision", "opt_level")  # of a plan: another makes another latency
DRIFTED = 0.03
SHOWN = 3  # missing pieces that a message names

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
    """Latencies of networks made of a table's pieces; everything is as measured on its device under its plan."""

    def __init__(self, record: Record, *, predict: bool = False) -> None:
        """Take a record that ``build`` has finished.

        Args:
            record: read from the table's file.
            predict: guess pieces that were not measured from those that were, in place of ``MissingPieces``.

        Raises:
            InvalidTable: the table is not finished.
        """
        if record.calibration is None:
            raise InvalidTable(f"{record.path} is not finished: run {command(record)}")
        self.record, self.calibration = record, record.calibration
        self.pieces_ms = pieces_ms(record)
        self._terms = {piece: piece_terms(piece, ms) for piece, ms in self.pieces_ms.items()}
        self._predict = predict

    def estimate(self, arch: Architecture) -> Estimate:
        """The network's latency; see ``estimate_many``."""
        return self.estimate_many([arch])[0]

    def estimate_many(self, archs: Sequence[Architecture]) -> list[Estimate]:
        """The latency of each network at batch 1.

        Raises:
            MissingPieces: pieces were not measured, and the table was not opened to predict them.
        """
        if not archs:
            return []
        made_of = [pieces(arch) for arch in archs]
        guessed = self._guessed({p for chain in made_of for p in chain if p not in self._terms})
        terms = self._terms | {p: piece_terms(p, ms) for p, ms in guessed.items()} if guessed else self._terms
        totals = total_terms([[terms[p] for p in chain] for chain in made_of])
        centres = estimates_ms(self.calibration.coefficients, totals)
        shares = [sum(guessed.get(p, 0.0) for p in chain) / total for chain, total in zip(made_of, totals[:, 0], strict=True)]
        return [self._estimate(float(ms), float(share)) for ms, share in zip(centres, shares, strict=True)]

    def missing(self, archs: Iterable[Architecture]) -> tuple[Piece, ...]:
        """The pieces of these networks that were not measured, each once."""
        return tuple(dict.fromkeys(p for arch in archs for p in pieces(arch) if p not in self._terms))

    def require(self, device: DeviceInfo, plan: TimingPlan) -> None:
        """Refuses another device, runtime, or plan whose latencies are others.

        Raises:
            InvalidTable: names the first difference.
        """
        conditions = self.record.conditions
        there, here = msgspec.to_builtins(conditions.plan), msgspec.to_builtins(plan)
        for name, was, now in (
            *((name, getattr(conditions.device, name), getattr(device, name)) for name in DeviceInfo.__struct_fields__),
            *((name, there[name], here[name]) for name in CONDITIONS if name in here),
        ):
            if was != now and name not in ("governor", "timer_ns"):
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
    def predictor(self) -> Predictor:
        """The model of pieces that were not measured, fitted when it is first asked for (seconds)."""
        return fit_predictor(self.pieces_ms)

    def _guessed(self, unknown: set[Piece]) -> dict[Piece, float]:
        if not unknown:
            return {}
        if not self._predict:
            raise MissingPieces(self._missing_text(unknown), tuple(unknown))
        ordered = sorted(unknown, key=str)
        return dict(zip(ordered, self.predictor.predict_ms(ordered), strict=True))

    def _missing_text(self, unknown: set[Piece]) -> str:
        shown = ", ".join(sorted(map(_described, unknown))[:SHOWN]) + (", …" if len(unknown) > SHOWN else "")
        many = "1 piece has" if len(unknown) == 1 else f"{len(unknown)} pieces have"
        failed = sum(p in self.record.unable for p in unknown)
        if failed:
            return f"{many} no latency in {self.record.path} ({shown}), for the device cannot run {failed} of them; open it to predict them"
        if all(isinstance(p.layer, Head) for p in unknown):
            outputs = self.record.conditions.head.outputs
            return f"{many} no latency in {self.record.path} ({shown}), which was built with --outputs {outputs}: build one with your own"
        return f"{many} no latency in {self.record.path} ({shown}); build a table of their space, such as: {command(self.record)}"

    def _estimate(self, ms: float, share: float) -> Estimate:
        """The calibration's interval, and in proportion to the share that was guessed the predictor's own beside it."""
        ratio = self.calibration.ratio_90
        if not share:
            return Estimate(ms=ms, low_ms=ms / ratio, high_ms=ms * ratio)
        ratio *= 1 + share * (self.predictor.error.ratio_90 - 1)
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


def command(record: Record) -> str:
    """The command that goes on with a table."""
    c = record.conditions
    plan = next((name for name, plan in PLANS.items() if msgspec.structs.replace(plan, threads=c.plan.threads) == c.plan), "")
    flags = {
        "space": c.space, "device": c.device_spec, "plan": plan, "runtime": c.runtime, "image-size": c.input_chw[1],
        "width": f"{c.width:g}", "outputs": c.head.outputs, "threads": c.plan.threads,
        "fit": c.fit, "held-out": c.held_out, "seed": c.seed, "out": record.path,
    }  # fmt: skip
    usual = {"plan": "", "runtime": "", "image-size": 224, "width": "1", "outputs": 10, "threads": 1, "fit": 60, "held-out": 40, "seed": 0}
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in flags.items() if usual.get(name) != value]
    return " ".join(["python -m latency.build_table", *words])


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


def _described(piece: Piece) -> str:
    c, h, w = piece.in_chw
    where = f"at {c}×{h}×{w}"
    b = piece.layer
    if isinstance(b, Head):
        return f"head of {b.outputs} outputs {where}"
    extras = [f"k{b.kernel}", f"s{b.stride}", *([f"SE {b.se_ch}"] if b.se_ch else []), *([b.skip] if b.skip != "none" else [])]
    return f"{b.op} {b.in_ch}→{b.out_ch} {' '.join(extras)} {where}"
