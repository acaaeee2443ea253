import contextlib
import os
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latency import DeviceError, Failed, InvalidDevice, Unreachable, open_device
from latency.devices.facts import read_facts
from latency.devices.remote import Remote
from latency.devices.ssh import SshLink, parse_address
from search_spaces.errors import UnknownName
from tests.latency.devices.phones import soon
from tests.latency.devices.sshd import Board, board


@pytest.fixture
def own_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board to break."""
    with board(tmp_path) as made:
        monkeypatch.setenv("PATH", str(made.tools), prepend=":")
        yield made


def said(lines: list[str], place: Board) -> Remote:
    return Remote(SshLink(place.address), say=lines.append)


def is_gone(word: str) -> bool:
    """Whether no process has that word in its command, or none has it any more within 2 minutes."""
    until = time.monotonic() + 120
    while is_there(word) and time.monotonic() < until:
        time.sleep(0.1)
    return not is_there(word)


def is_there(word: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"\0{word}\0".encode() in path.read_bytes():
                return True
    return False


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("board", ("board", None)),
        ("pi@10.0.0.7", ("pi@10.0.0.7", None)),
        ("pi@board.local:2222", ("pi@board.local", 2222)),
        ("[fe80::1%eth0]:22", ("fe80::1%eth0", 22)),
    ],
)
def test_address_is_split(address: str, expected: tuple[str, int | None]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize("address", ["", "-oProxyCommand=x", "a b", "a;b", "$(id)", "a@b@c", "a:0", "a:99999", "a:b", "-l@x", "a\nb"])
def test_address_with_other_characters_is_refused(address: str) -> None:
    with pytest.raises(InvalidDevice, match=r"user@\]host"):
        parse_address(address)


def test_unknown_option_is_refused_before_any_connection() -> None:
    with pytest.raises(UnknownName, match="did you mean 'runtime'"):
        open_device("ssh:board,runtim=x")


def test_files_come_back_as_they_went(known_board: Board, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "sent").write_bytes(data)
    with contextlib.closing(Remote(SshLink(known_board.address))) as remote:
        remote.push(tmp_path / "sent", f"{remote.folder}/it's here")
        remote.pull(f"{remote.folder}/it's here", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == data


def test_programs_stay_executable_and_no_part_is_left(known_board: Board, tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\necho ran $1\n")
    (tmp_path / "program").chmod(0o700)
    with contextlib.closing(Remote(SshLink(known_board.address))) as remote:
        remote.push(tmp_path / "program", f"{remote.folder}/program")
        assert remote.run([f"{remote.folder}/program", "well"], timeout_s=120).out == "ran well\n"
        assert not list(Path(remote.folder).glob("*.part"))


def test_folder_that_is_not_there_fails_with_its_name(known_board: Board, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with contextlib.closing(Remote(SshLink(known_board.address))) as remote:
        with pytest.raises(Failed, match=r"cannot put a \(1 bytes\) at /nowhere/a"):
            remote.push(tmp_path / "a", "/nowhere/a")
        with pytest.raises(Failed, match="cannot read /nowhere/a"):
            remote.pull("/nowhere/a", tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_command_that_overruns_is_ended_there_too(known_board: Board) -> None:
    with contextlib.closing(Remote(SshLink(known_board.address))) as remote, pytest.raises(Unreachable, match="did not end within 15 s"):
        remote.run(["sleep", "271.271271"], timeout_s=15)
    assert is_gone("271.271271")


def test_lost_connection_is_made_again_once_and_said(own_board: Board) -> None:
    lines: list[str] = []
    with contextlib.closing(said(lines, own_board)) as remote:
        log = Path(remote.folder) / "log"
        cut = soon(log.exists, own_board.cut)
        answer = remote.run(["sh", "-c", f"[ -e {log} ] && exec echo done; echo x > {log}; exec sleep 250"], timeout_s=250)
        cut.join()
    assert answer.out == "done\n"
    assert len(lines) == 1
    assert "the connection was lost while sh ran and is back" in lines[0]


@pytest.mark.slow
def test_board_that_goes_without_a_word_is_noticed_before_its_command_is_over(own_board: Board) -> None:
    lines: list[str] = []
    with contextlib.closing(said(lines, own_board)) as remote:
        log = Path(remote.folder) / "log"
        frozen = soon(log.exists, own_board.freeze)
        answer = remote.run(["sh", "-c", f"[ -e {log} ] && exec echo done; echo x > {log}; exec sleep 250"], timeout_s=50)
        frozen.join()
    assert answer.out == "done\n"
    assert "the connection was lost while sh ran and is back" in lines[0]


def test_board_that_stays_away_is_unreachable_with_advice(own_board: Board) -> None:
    with contextlib.closing(said([], own_board)) as remote:
        log = Path(remote.folder) / "log"
        gone = soon(log.exists, own_board.stop)
        with pytest.raises(Unreachable, match="Connection refused: start its ssh server"):
            remote.run(["sh", "-c", f"echo $$ > {log}; exec sleep 250"], timeout_s=250)
        gone.join()
    os.kill(int(log.read_text()), signal.SIGKILL)


def test_nothing_at_the_port_is_unreachable(own_board: Board) -> None:
    own_board.stop()
    with pytest.raises(Unreachable, match="Connection refused"):
        open_device(f"ssh:{own_board.address}")


def test_refused_key_says_what_to_do(own_board: Board) -> None:
    (own_board.folder / "user.pub").write_text("")
    with pytest.raises(Unreachable, match=r"Permission denied.*ssh-copy-id"):
        open_device(f"ssh:{own_board.address}")


def test_unknown_host_key_says_what_to_do(own_board: Board) -> None:
    (own_board.folder / "known").write_text("")
    with pytest.raises(Unreachable, match=r"Host key verification failed: connect once by hand"):
        open_device(f"ssh:{own_board.address}")


def test_garbage_in_place_of_a_shell_is_no_answer(own_board: Board) -> None:
    key = own_board.folder / "user.pub"
    key.write_text(f'command="echo garbage" {key.read_text()}')
    with contextlib.closing(said([], own_board)) as remote, pytest.raises(Unreachable, match="garbage"):
        remote.run(["true"], timeout_s=120)


def test_missing_ssh_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreachable, match="there is no ssh on this computer"):
        open_device("ssh:board")


def test_closed_transport_refuses_and_leaves_no_socket(known_board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    remote = Remote(SshLink(known_board.address))
    remote.run(["true"], timeout_s=120)
    assert list(tmp_path.iterdir())
    remote.close()
    remote.close()
    assert not list(tmp_path.iterdir())
    with pytest.raises(DeviceError, match="closed"):
        remote.run(["true"], timeout_s=120)


def test_facts_of_a_board_are_those_of_this_computer(known_board: Board) -> None:
    with contextlib.closing(Remote(SshLink(known_board.address))) as remote:
        facts = read_facts(remote)
    assert (facts.machine, set(facts.allowed_cpus)) == (platform.machine(), os.sched_getaffinity(0))
