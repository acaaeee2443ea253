"""The predictor on made-up devices whose latencies follow a law, with pieces that it never saw."""

import math
from functools import cache

import numpy as np
import pytest

from latency.piece_work import piece_work
from latency.predictor import Predictor, fit_predictor
from search_spaces import Head, Piece, open_space

HEAD = Head(outputs=10)


def law_ms(piece: Piece) -> float:
    """Compute, memory and a fixed cost; SE costs 20 % more."""
    work = piece_work(piece)
    gate = 1.2 if getattr(piece.layer, "se_ch", 0) else 1.0
    return (0.005 + work.macs * 4e-8 + work.written_elements * 2e-7 + work.weights * 1e-7) * gate


@cache
def fitted() -> Predictor:
    return fit_predictor({p: law_ms(p) for p in open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD)})


def other_widths() -> tuple[Piece, ...]:
    """Pieces of the same space at another width that it does not have in common."""
    known = set(open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD))
    return tuple(p for p in open_space("tiny", width=0.75, input_chw=(3, 32, 32)).pieces(HEAD) if p not in known)


def test_pieces_of_other_widths_are_predicted_as_well_as_it_says() -> None:
    predictor, pieces = fitted(), other_widths()
    ratios = np.array(predictor.predict_ms(pieces)) / [law_ms(p) for p in pieces]
    inside = np.abs(np.log(ratios)) <= math.log(predictor.error.ratio_90)
    assert inside.mean() >= 0.85  # it says 90 % of other shapes; this is one draw of them
    assert np.abs(ratios - 1).mean() < 0.25


def test_error_is_stated_for_all_pieces() -> None:
    error = fitted().error
    assert error.pieces == len(open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD))
    assert 0 < error.mape < error.ratio_90 - 1


def test_known_pieces_come_out_nearly_as_measured() -> None:
    known = open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD)
    ratios = np.array(fitted().predict_ms(known)) / [law_ms(p) for p in known]
    assert np.median(np.abs(ratios - 1)) < 0.05


def test_two_predictors_of_the_same_pieces_are_equal() -> None:
    known = {p: law_ms(p) for p in open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD)[::4]}
    assert fit_predictor(known).predict_ms(other_widths()) == fit_predictor(known).predict_ms(other_widths())


def test_error_of_too_few_kinds_of_pieces_is_infinite() -> None:
    known = {p: law_ms(p) for p in open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD)[:8]}
    assert fit_predictor(known).error.ratio_90 == math.inf


def test_nothing_to_predict_is_nothing() -> None:
    assert fitted().predict_ms([]) == pytest.approx([])
