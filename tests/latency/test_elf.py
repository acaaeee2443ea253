import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latency.elf import global_symbols, read_elf
from latency.runner import program_for

PROGRAM = program_for("glibc", "x86_64")
DATA = PROGRAM.read_bytes() if PROGRAM else b""
SOURCE = "int used(int); static int hidden; int here(void) { hidden++; return used(hidden); }"


def test_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no 64-bit little-endian ELF file"):
        read_elf(b"PK\3\4 a zip file")


def test_a_machine_that_is_not_known_is_refused() -> None:
    riscv = DATA[:18] + b"\xf3\x00" + DATA[20:]
    with pytest.raises(ValueError, match="not for aarch64 or x86_64"):
        read_elf(riscv)


@given(st.integers(0, len(DATA)))
@example(64)
def test_a_file_that_was_cut_is_read_or_refused_and_never_breaks(length: int) -> None:
    with contextlib.suppress(ValueError):
        assert read_elf(DATA[:length]).machine == "x86_64"


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_symbols_of_an_object_are_those_its_source_names(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(SOURCE)
    subprocess.run(["gcc", "-c", "-O0", "-fno-pic", "a.c"], cwd=tmp_path, check=True)
    assert global_symbols((tmp_path / "a.o").read_bytes()) == (frozenset({"here"}), frozenset({"used"}))
