import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from latency.devices.__main__ import main
from tests.latency.devices.sshd import Board
from tests.phone.phone import SERIAL, FakePhone

LISTING = "List of devices attached\n9Z8Y unauthorized usb:1-3\n77 offline\n"


def adb_that_lists(folder: Path) -> str:
    program = folder / "adb"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = devices ] && printf '{LISTING}'\nexit 0\n".replace("\n9", "\\n9").replace("\n77", "\\n77"))
    program.chmod(0o755)
    return str(program)


def listed(*words: str, **environ: str) -> Result:
    return CliRunner().invoke(main, list(words), env=environ, prog_name="devices")


def test_this_computer_is_listed_first(tmp_path: Path) -> None:
    done = listed("--json", "--adb", adb_that_lists(tmp_path))
    first = json.loads(done.stdout)[0]
    assert (first["address"], first["is_ready"], done.exit_code) == ("local", True, 0)


def test_phones_that_cannot_be_used_are_listed_with_what_to_do(tmp_path: Path) -> None:
    done = listed("--adb", adb_that_lists(tmp_path))
    assert "android:9Z8Y  cannot be used" in done.stdout
    assert "android:9Z8Y: unauthorized: unlock it and allow this computer's key" in done.stderr
    assert "android:77: offline: unplug it" in done.stderr
    assert done.exit_code == 0


def test_without_adb_the_rest_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("ADB", raising=False)
    monkeypatch.setitem(sys.modules, "adbutils", None)
    done = listed("--json", ANDROID_HOME=str(tmp_path), ANDROID_SDK_ROOT=str(tmp_path))
    entries = {entry["address"]: entry for entry in json.loads(done.stdout)}
    assert entries["local"]["is_ready"]
    assert "there is no adb here: install it" in entries["android"]["problems"][0]


@pytest.mark.parametrize("address", ["ssh:a;b", "android:a;b", "ssh:", "ssh:board,runtime="])
def test_malformed_address_is_one_line_and_wrong_usage(address: str, tmp_path: Path) -> None:
    done = listed(address, "--adb", adb_that_lists(tmp_path))
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_unknown_way_of_this_computer_is_wrong_usage() -> None:
    done = listed("local:foo")
    assert (done.exit_code, done.stderr) == (2, "error: local: after the colon may stand runner or python, got 'foo'\n")


def test_unknown_kind_is_wrong_usage() -> None:
    done = listed("sssh:board")
    assert (done.exit_code, done.stderr) == (2, "error: unknown device 'sssh'; did you mean 'ssh'? (known: local, ssh, android)\n")


def test_named_phone_that_cannot_be_used_is_exit_code_1(tmp_path: Path) -> None:
    done = listed("android:77", "--adb", adb_that_lists(tmp_path))
    assert (done.exit_code, done.stderr) == (
        1, "android:77: the phone 77 is offline: unplug it and plug it in again, or switch USB debugging off and on\n",
    )  # fmt: skip


def test_named_board_is_looked_at(known_board: Board) -> None:
    done = listed("--json", f"ssh:{known_board.address}", PATH=os.environ["PATH"])
    (entry,) = json.loads(done.stdout)
    assert (entry["is_ready"], done.exit_code) == (True, 0), entry["problems"]
    assert entry["facts"]["machine"]


def test_phone_on_adb_is_found_and_its_heat_told(shared_phone: FakePhone) -> None:
    shared_phone.call("connect", SERIAL)
    (shared_phone.fake / "thermal").write_text("2\n")
    done = listed("--json", "--adb", str(shared_phone.adb))
    (shared_phone.fake / "thermal").write_text("0\n")
    entry = json.loads(done.stdout)[1]
    assert (entry["address"], entry["is_ready"]) == (f"android:{SERIAL}", True)
    assert entry["problems"] == ["it is throttled by heat (thermal status 2): let it cool"]


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from latency.devices.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('onnx', 'onnxruntime', 'torch', 'rich', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize(("address", "meant"), [("pi@board", "ssh:pi@board"), ("board.local:22", "ssh:board.local:22")])
def test_a_board_without_its_kind_is_told_what_to_say(address: str, meant: str) -> None:
    done = listed(address)
    assert done.exit_code == 2
    assert done.stderr.endswith(f"for a board say {meant}\n")


def test_a_board_without_a_name_is_asked_for_it() -> None:
    done = listed("ssh")
    assert (done.exit_code, done.stderr) == (2, "error: ssh: name the board, ssh:[user@]host[:port], by any name that your ssh knows\n")


def test_a_runtime_behind_an_address_does_no_harm() -> None:
    assert listed("local,runtime=x.so").exit_code == 0


def test_a_missing_phone_is_said_once_and_does_not_point_here(tmp_path: Path) -> None:
    program = tmp_path / "adb"
    program.write_text("#!/bin/sh\n[ \"$1\" = devices ] && echo 'List of devices attached'\nexit 0\n")
    program.chmod(0o755)
    done = listed("android:A1", "--adb", str(program))
    assert done.stderr == "android:A1: no phone A1 on adb: plug one in, switch on USB debugging in its developer options\n"


def test_a_board_is_known_by_its_name_in_the_users_configuration(known_board: Board) -> None:
    done = listed("ssh:my-board", PATH=os.environ["PATH"])
    assert (done.exit_code, "ssh:my-board  ready" in done.stdout) == (0, True), done.stderr
    assert done.stderr.endswith("To time a model there: python -m latency.profile MODEL.onnx --device ssh:my-board\n")


def test_a_phone_that_is_there_is_followed_by_the_command_that_times_on_it(shared_phone: FakePhone) -> None:
    done = listed(f"android:{SERIAL}", "--adb", str(shared_phone.adb))
    command = f"python -m latency.profile MODEL.onnx --device android:{SERIAL} --runtime onnxruntime-android.aar"
    assert done.stderr.endswith(f"To time a model there: {command}\n")
