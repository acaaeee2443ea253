import hashlib
import json
import re

import pytest

from latency.elf import read_elf
from latency.runner import BINARIES, TARGETS, VERSIONS
from latency.runner.build import build, built_with

RECORD = json.loads(VERSIONS.read_text())


def program(target: str) -> bytes:
    return (BINARIES / f"runner-{target}").read_bytes()


@pytest.mark.parametrize("target", TARGETS)
def test_every_program_is_the_one_on_record(target: str) -> None:
    assert hashlib.sha256(program(target)).hexdigest() == RECORD["sha256"][target]


@pytest.mark.slow
@pytest.mark.skipif(built_with() != RECORD["ziglang"], reason=f"needs ziglang {RECORD['ziglang']}, there is {built_with() or 'none'}")
@pytest.mark.parametrize("target", TARGETS)
def test_building_again_gives_the_same_bytes(target: str) -> None:
    assert build(target) == program(target)


@pytest.mark.parametrize("target", TARGETS)
def test_every_program_is_for_its_machine_and_c_library(target: str) -> None:
    elf, (system, machine) = read_elf(program(target)), target.split("-")
    assert (elf.machine, elf.libc) == (machine, {"linux": "glibc", "android": "bionic"}[system])


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_linux_programs_run_on_glibc_of_2012(machine: str) -> None:
    minors = {int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", program(f"linux-{machine}"))}
    assert max(minors) <= 17


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_android_programs_need_nothing_but_libc_and_load_with_large_pages(machine: str) -> None:
    elf = read_elf(program(f"android-{machine}"))
    assert sorted(elf.needed) == ["libc.so", "libdl.so"]
    assert elf.page_size >= 16384  # Android 15 and newer have 16 KiB pages
