"""The predictor on made-up devices whose latencies follow a law, with pieces that it never saw."""

import math
from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
import pytest

from latency.piece_work import piece_work
from latency.predictor import Predictor, fit_predictor
from search_spaces import Block, Head, Piece, open_space

HEAD = Head(outputs=10)


def law_ms(piece: Piece) -> float:
    """Compute, memory and a fixed cost; SE costs 20 % more."""
    work = piece_work(piece)
    gate = 1.2 if getattr(piece.layer, "se_ch", 0) else 1.0
    return (0.005 + work.macs * 4e-8 + work.written_elements * 2e-7 + work.weights * 1e-7) * gate


@cache
def fitted() -> Predictor:
    return fit({p: law_ms(p) for p in open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD)})


def fit(known_ms: dict[Piece, float]) -> Predictor:
    found = fit_predictor(known_ms)
    assert found is not None
    return found


def predicted_ms(predictor: Predictor, pieces: Sequence[Piece]) -> list[float]:
    return [guess.ms for guess in predictor.guess(pieces)]


def other_widths() -> tuple[Piece, ...]:
    """Pieces of the same space at another width that it does not have in common."""
    known = set(open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD))
    return tuple(p for p in open_space("tiny", width=0.75, input_chw=(3, 32, 32)).pieces(HEAD) if p not in known)


def test_pieces_of_other_widths_are_predicted_as_well_as_it_says() -> None:
    predictor, pieces = fitted(), other_widths()
    ratios = np.array(predicted_ms(predictor, pieces)) / [law_ms(p) for p in pieces]
    inside = np.abs(np.log(ratios)) <= np.log([guess.ratio_90 for guess in predictor.guess(pieces)])
    assert inside.mean() >= 0.85  # it says 90 % of other shapes; this is one draw of them
    assert np.abs(ratios - 1).mean() < 0.25


def test_error_is_stated_for_all_pieces() -> None:
    error = fitted().error
    assert error.pieces == len(open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD))
    assert 0 < error.mape < error.ratio_90 - 1


def test_known_pieces_come_out_nearly_as_measured() -> None:
    known = open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD)
    ratios = np.array(predicted_ms(fitted(), known)) / [law_ms(p) for p in known]
    assert np.median(np.abs(ratios - 1)) < 0.05


def test_two_predictors_of_the_same_pieces_are_equal() -> None:
    known = {p: law_ms(p) for p in open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD)[::4]}
    assert fit(known).guess(other_widths()) == fit(known).guess(other_widths())


def test_guess_does_not_depend_on_what_else_is_asked_for() -> None:
    pieces = other_widths()[:20]
    together, alone = fitted().guess(pieces), [fitted().guess([p])[0] for p in pieces]
    assert [g.ms for g in together] == pytest.approx([g.ms for g in alone])


def test_too_few_kinds_of_pieces_give_no_predictor() -> None:
    known = {p: law_ms(p) for p in open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD)[:8]}
    assert fit_predictor(known) is None


def test_nothing_to_predict_is_nothing() -> None:
    assert fitted().guess([]) == []


def narrowed(piece: Piece, hidden_ch: int) -> Piece:
    return msgspec.structs.replace(piece, layer=msgspec.structs.replace(piece.layer, hidden_ch=hidden_ch))


def wide() -> Piece:
    """A measured piece with a wide middle."""
    found = [p for p in open_space("tiny", input_chw=(3, 32, 32)).pieces(HEAD) if isinstance(p.layer, Block) and p.layer.op == "mbconv"]
    return max(found, key=lambda p: getattr(p.layer, "hidden_ch", 0))


def test_middle_widths_between_measured_ones_rise_with_the_width() -> None:
    piece = wide()
    assert isinstance(piece.layer, Block)
    guesses = predicted_ms(fitted(), [narrowed(piece, ch) for ch in range(16, piece.layer.hidden_ch + 1, 16)])
    assert np.corrcoef(guesses, range(len(guesses)))[0, 1] > 0.98
    assert guesses[0] < guesses[-1] / 2


def test_piece_far_from_all_that_were_measured_has_a_wider_interval() -> None:
    piece = wide()
    assert isinstance(piece.layer, Block)
    (near,), (far,) = (fitted().guess([narrowed(piece, ch)]) for ch in (piece.layer.hidden_ch, 64 * piece.layer.hidden_ch))
    assert near.ratio_90 == fitted().error.ratio_90
    assert math.log(far.ratio_90) > 1.5 * math.log(near.ratio_90)
    assert far.ms > 20 * near.ms  # 64 times the work, but for the call's own cost


def test_kinds_are_covered_as_they_were_measured() -> None:
    predictor, piece = fitted(), wide()
    assert predictor.covers(piece)
    for change in ({"kernel": 11}, {"act": "none"}, {"dilation": 2}):
        assert not predictor.covers(msgspec.structs.replace(piece, layer=msgspec.structs.replace(piece.layer, **change)))
    assert not predictor.covers(msgspec.structs.replace(piece, dims=1))
