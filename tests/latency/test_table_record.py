"""A table's file: what is written is read, a torn line is dropped, anything else is refused by line."""

from pathlib import Path

import msgspec
import pytest

from latency.errors import InvalidTable
from latency.table_record import AGAIN, TimedPiece, Unable, Written, append, locked, read
from search_spaces import Block, Head, Piece
from tests.latency.tables import conditions, timing

CONV = Piece(layer=Block(op="conv", in_ch=3, out_ch=8), in_chw=(3, 9, 7))
HEAD = Piece(layer=Head(outputs=4), in_chw=(8, 1, 7), dims=1)


def begun(path: Path) -> Path:
    append(path, [conditions(), TimedPiece(piece=Written.of(CONV), go=0, timing=timing(1.5))])
    return path


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = begun(tmp_path / "t.jsonl")
    append(path, [TimedPiece(piece=Written.of(CONV), go=AGAIN, timing=timing(1.6)), Unable(piece=Written.of(HEAD), error="no")])
    record = read(path)
    assert record.conditions == conditions()
    assert record.pieces == {CONV: {0: timing(1.5), AGAIN: timing(1.6)}}
    assert record.unable == {HEAD: "no"}


def test_torn_last_line_is_left_out_and_cut_off_by_the_next_row(tmp_path: Path) -> None:
    path = begun(tmp_path / "t.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"row":"piece","go":1' * 9000)  # longer than one look backwards
    assert len(read(path).rows) == 1
    append(path, [Unable(error="no")])
    assert path.read_bytes().startswith(whole + b'{"row":"failed"')


def test_file_torn_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"row":"tab')
    append(path, [conditions()])
    assert read(path).conditions == conditions()


def test_line_that_is_no_row_is_named(tmp_path: Path) -> None:
    path = begun(tmp_path / "t.jsonl")
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(InvalidTable, match=r"t\.jsonl:3: no row of a latency table .* was the file edited\?"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"hello\n", b'{"row":"failed","error":"x"}\n', b"\xff\xfe\n", b"\x00" * 40])
def test_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.jsonl").write_bytes(content)
    with pytest.raises(InvalidTable, match=r"no (latency table|row)"):
        read(tmp_path / "t.jsonl")


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidTable, match=r"none\.jsonl: cannot be read: no such file"):
        read(tmp_path / "none.jsonl")


def test_other_version_is_refused(tmp_path: Path) -> None:
    append(tmp_path / "t.jsonl", [msgspec.structs.replace(conditions(), version=99)])
    with pytest.raises(InvalidTable, match="version 99, and this program reads 1"):
        read(tmp_path / "t.jsonl")


def test_second_builder_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "t.jsonl"), pytest.raises(InvalidTable, match="being built by another process"), locked(tmp_path / "t.jsonl"):
        pass
