import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from latency import DeviceError, Unreachable
from latency.devices.transport import LINKED_BYTES, LocalTransport


@pytest.fixture
def transport() -> Iterator[LocalTransport]:
    opened = LocalTransport()
    yield opened
    opened.close()


def test_a_command_gets_its_arguments_as_they_are(transport: LocalTransport) -> None:
    odd = ["a b", "$HOME", "*", "'\"", "ü"]
    result = transport.run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *odd], timeout_s=60)
    assert (result.code, result.out, result.err) == (0, f"{odd}\n", "")


def test_code_and_standard_error_come_back(transport: LocalTransport) -> None:
    result = transport.run([sys.executable, "-c", "import sys; sys.exit('no')"], timeout_s=60)
    assert (result.code, result.out, result.err) == (1, "", "no\n")


def test_a_missing_program_is_a_code_and_no_exception(transport: LocalTransport) -> None:
    assert transport.run(["/nowhere/at/all"], timeout_s=60).code == 127


def test_a_command_that_does_not_end_is_killed(transport: LocalTransport, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="did not end within 3 s"):
        transport.run(["/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"], timeout_s=3)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("count", [3, LINKED_BYTES + 1])
def test_files_go_there_and_back(transport: LocalTransport, tmp_path: Path, count: int) -> None:
    (tmp_path / "here").write_bytes(b"x" * count)
    for _ in range(2):  # a file that is there already is replaced
        transport.push(tmp_path / "here", f"{transport.folder}/there")
    transport.pull(f"{transport.folder}/there", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"x" * count


def test_a_program_can_be_run_where_it_was_put(transport: LocalTransport, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho here\n")
    program.chmod(0o755)
    transport.push(program, f"{transport.folder}/program")
    assert transport.run([f"{transport.folder}/program"], timeout_s=60).out == "here\n"


def test_missing_files_and_folders_are_errors_of_one_line(transport: LocalTransport, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot read /nowhere: No such file"):
        transport.pull("/nowhere", tmp_path / "back")
    with pytest.raises(DeviceError, match="cannot write /nowhere/there: No such file"):
        transport.push(Path(__file__), "/nowhere/there")


def test_the_folder_goes_when_it_is_closed(transport: LocalTransport) -> None:
    folder = Path(transport.folder)
    assert folder.is_dir()
    transport.close()
    transport.close()
    assert not folder.exists()
