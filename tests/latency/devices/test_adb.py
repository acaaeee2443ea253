import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from latency import Failed, InvalidDevice, InvalidRuntime, Unreachable, open_device
from latency.devices.adb import AdbLink, Phone, check_serial, choose, find_adb, parse_phones, phones
from latency.devices.facts import read_condition, read_facts
from latency.devices.remote import Remote
from tests.latency.devices.phones import soon
from tests.phone.phone import SERIAL, FakePhone

LISTING = """* daemon started successfully
List of devices attached
1A2B3C4D               device usb:1-2 product:oriole model:Pixel_6 device:oriole transport_id:1
9Z8Y                   unauthorized usb:1-3 transport_id:2
emulator-5554          offline transport_id:3
0123                   no permissions (user in plugdev group; are your udev rules wrong?); see [http://developer.android.com/x]
192.168.1.5:5555       recovery product:x model:Y device:z transport_id:5

"""


def remote_of(made: FakePhone, *, say: Callable[[str], None] | None = None, back_s: float = 120) -> contextlib.closing[Remote]:
    return contextlib.closing(Remote(AdbLink(str(made.adb), SERIAL, back_s=back_s), say=say))


def fake_adb(folder: Path, says: str) -> str:
    program = folder / "adb"
    (folder / "says").write_text(says)
    program.write_text(f'#!/bin/sh\n[ "$1" = devices ] && cat {folder}/says\nexit 0\n')
    program.chmod(0o755)
    return str(program)


def test_every_state_in_a_listing_is_read() -> None:
    assert [(p.serial, p.state) for p in parse_phones(LISTING)] == [
        ("1A2B3C4D", "device"), ("9Z8Y", "unauthorized"), ("emulator-5554", "offline"), ("0123", "no permissions"),
        ("192.168.1.5:5555", "recovery"),
    ]  # fmt: skip
    assert parse_phones(LISTING)[0].model == "Pixel 6"


STATES = {"unauthorized": "allow this computer", "offline": "plug it in again", "no permissions": "udev", "never seen": "see adb"}


@pytest.mark.parametrize(("state", "advice"), STATES.items())
def test_unusable_phone_is_unreachable_with_advice(state: str, advice: str) -> None:
    with pytest.raises(Unreachable, match=f"the phone A is {state}: .*{advice}"):
        choose((Phone(serial="A", state=state),), "")


def test_no_phone_says_how_to_plug_one_in() -> None:
    with pytest.raises(Unreachable, match="no phone on adb: plug one in, switch on USB debugging"):
        choose((), "")


def test_two_phones_and_no_serial_are_named() -> None:
    seen = tuple(Phone(serial=serial, state="device") for serial in ("A1", "B2"))
    with pytest.raises(InvalidDevice, match="2 phones are there, name one: android:A1 or android:B2"):
        choose(seen, "")


def test_the_only_usable_phone_is_taken() -> None:
    assert choose(parse_phones(LISTING), "").serial == "1A2B3C4D"


def test_serial_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(Unreachable, match="no phone B2 on adb: there is A1"):
        choose((Phone(serial="A1", state="device"),), "B2")


@pytest.mark.parametrize("serial", ["1A2B", "emulator-5554", "192.168.1.5:5555", "adb-1A-x._adb-tls-connect._tcp", "[fe80::1]:5555"])
def test_serials_as_adb_shows_them_are_taken(serial: str) -> None:
    assert check_serial(serial) == serial


@pytest.mark.parametrize("serial", ["a;b", "$(id)", "a b", "-s", "a&b", "`x`", "a|b", "a\nb", "a'b", ""])
def test_serials_with_a_shells_characters_are_refused(serial: str) -> None:
    with pytest.raises(InvalidDevice, match="a serial has letters, digits"):
        check_serial(serial)


def test_malformed_serial_is_refused_before_anything_is_run() -> None:
    with pytest.raises(InvalidDevice, match="a serial has letters"):
        open_device("android:a;reboot")


def test_phone_without_a_runtime_names_its_maven_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONNXRUNTIME_ANDROID", raising=False)
    with pytest.raises(InvalidRuntime, match=r"com\.microsoft.onnxruntime:onnxruntime-android .*--runtime FILE .*--runtime fetch"):
        open_device("android")


def test_adb_is_taken_from_its_variable_then_path_then_sdk(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("own", "path", "sdk/platform-tools")}
    for place in places.values():
        place.mkdir(parents=True)
        fake_adb(place, "")
    environ = {"ADB": str(places["own"] / "adb"), "PATH": str(places["path"]), "ANDROID_HOME": str(tmp_path / "sdk")}
    assert find_adb(environ=environ) == str(places["own"] / "adb")
    assert find_adb(environ={**environ, "ADB": ""}) == str(places["path"] / "adb")
    assert find_adb(environ={**environ, "ADB": "", "PATH": ""}) == str(places["sdk/platform-tools"] / "adb")


def test_variable_that_names_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDevice, match=r"\$ADB must be a program"):
        find_adb(environ={"ADB": str(tmp_path / "nothing"), "PATH": os.environ["PATH"]})


def test_adb_that_lists_nothing_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="adb does not list its devices"):
        phones(fake_adb(tmp_path, "cannot bind\n"))


def test_phone_that_answers_nothing_with_exit_code_0_is_not_believed(tmp_path: Path) -> None:
    adb = fake_adb(tmp_path, "List of devices attached\nA1 device\n")
    said: list[str] = []
    with contextlib.closing(Remote(AdbLink(adb, "A1"), say=said.append)) as remote, pytest.raises(Unreachable, match="lost twice"):
        remote.run(["true"], timeout_s=120)


def test_files_and_words_pass_to_the_phone_and_back(shared_phone: FakePhone, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "sent").write_bytes(data)
    with remote_of(shared_phone) as remote:
        remote.push(tmp_path / "sent", f"{remote.folder}/file")
        remote.pull(f"{remote.folder}/file", tmp_path / "got")
        answer = remote.run(["sh", "-c", 'echo "$0"; echo e >&2; exit 7', "it's $HOME"], timeout_s=120)
    assert (tmp_path / "got").read_bytes() == data
    assert (answer.code, answer.out, answer.err) == (7, "it's $HOME\n", "e\n")


def test_full_phone_fails_with_the_room_that_is_left_and_keeps_no_part(own_phone: FakePhone, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(200_000_000)
    with remote_of(own_phone) as remote:
        with pytest.raises(Failed, match=r"cannot put large \(200,000,000 bytes\).*No space left on device.*KiB free there"):
            remote.push(tmp_path / "large", f"{remote.folder}/large")
        assert remote.run(["ls", "-A", remote.folder], timeout_s=120).out == ""


def test_missing_file_fails_by_its_name(shared_phone: FakePhone, tmp_path: Path) -> None:
    with remote_of(shared_phone) as remote, pytest.raises(Failed, match="cannot read /data/local/tmp/nothing"):
        remote.pull("/data/local/tmp/nothing", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_phone_pulled_out_in_mid_command_and_back_does_it_once_more(own_phone: FakePhone) -> None:
    lines: list[str] = []

    def blink() -> None:
        own_phone.unplug()
        own_phone.plug_in()

    with remote_of(own_phone, say=lines.append) as remote:
        log = f"{remote.folder}/log"
        thread = soon(own_phone.inside(log).exists, blink)
        answer = remote.run(["sh", "-c", f"[ -e {log} ] && exec echo done; echo x > {log}; sleep 250"], timeout_s=250)
        thread.join()
    assert (answer.code, answer.out) == (0, "done\n")
    assert len(lines) == 1
    assert "the connection was lost while sh ran and is back" in lines[0]


def test_phone_pulled_out_for_good_is_unreachable(own_phone: FakePhone) -> None:
    with remote_of(own_phone, back_s=1) as remote:
        log = f"{remote.folder}/log"
        thread = soon(own_phone.inside(log).exists, own_phone.unplug)
        with pytest.raises(Unreachable, match=SERIAL):
            remote.run(["sh", "-c", f"echo x > {log}; sleep 250"], timeout_s=250)
        thread.join()


def test_command_that_overruns_leaves_the_phone_usable(shared_phone: FakePhone) -> None:
    with remote_of(shared_phone) as remote:
        with pytest.raises(Unreachable, match="sleep did not end within 2 s"):
            remote.run(["sleep", "60"], timeout_s=2)
        assert remote.run(["echo", "well"], timeout_s=120).out == "well\n"


def test_phone_tells_its_cores_from_fast_to_slow_and_its_build(shared_phone: FakePhone) -> None:
    with remote_of(shared_phone) as remote:
        facts = read_facts(remote)
    big, little = facts.classes
    assert (big.name, big.cpus, big.max_mhz, big.mask) == ("Cortex-A76", (1,), 2841, "2")
    assert (little.name, little.cpus, little.max_mhz, little.mask) == ("Cortex-A55", (0,), 1804, "1")
    assert (facts.machine, facts.bits, facts.os) == ("aarch64", 64, "Android 14 (API 34)")
    assert facts.build == "example/fake/fakephone:14/UP1A/1:user/test-keys"
    assert facts.info("android").cpu == "Example Fake Phone (Example SM0000): 1× Cortex-A76 2.84 GHz + 1× Cortex-A55 1.80 GHz"


def test_hot_phone_and_empty_battery_are_problems_until_they_pass(own_phone: FakePhone) -> None:
    with remote_of(own_phone) as remote:
        assert read_condition(remote).problems() == ()
        (own_phone.fake / "thermal").write_text("3\n")
        battery = (own_phone.fake / "battery").read_text()
        (own_phone.fake / "battery").write_text(battery.replace("87", "12"))
        assert read_condition(remote).problems() == (
            "it is throttled by heat (thermal status 3): let it cool", "its battery is at 12 %: charge it",
        )  # fmt: skip
        (own_phone.fake / "thermal").write_text("0\n")
        (own_phone.fake / "battery").write_text(battery)
        assert read_condition(remote).problems() == ()
