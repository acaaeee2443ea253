"""Wrong devices and runtimes on the command line: one line, and the exit code that says whose turn it is."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from latency.profile import main
from tests.latency.profiled import saved
from tests.latency.runtimes import ARM, aar

ONE, TWO = "A1 device model:Pixel_6\n", "A1 device model:Pixel_6\nB2 device model:Pixel_6\n"


def profiled(folder: Path, listing: str, *words: str) -> Result:
    """The verb with an adb that lists these phones and can do nothing else."""
    (folder / "listing").write_text(f"List of devices attached\n{listing}")
    (folder / "adb").write_text(f'#!/bin/sh\n[ "$1" = devices ] && cat {folder}/listing\nexit 0\n')
    (folder / "adb").chmod(0o755)
    environ = {"ADB": str(folder / "adb"), "ONNXRUNTIME_ANDROID": ""}
    return CliRunner().invoke(main, [str(saved(folder / "a.onnx")), *words], env=environ)


@pytest.mark.parametrize(
    ("device", "listing", "exit_code", "sentence"),
    [
        ("android", "", 1, "no phone on adb: plug one in, switch on USB debugging"),
        ("android", "9Z unauthorized usb:1-3\n", 1, "the phone 9Z is unauthorized: unlock it and allow this computer's key"),
        ("android", TWO, 2, "2 phones are there, name one: android:A1 or android:B2"),
        ("android:B2", ONE, 1, "no phone B2 on adb: there is A1"),
        ("android:$(reboot)", ONE, 2, "a serial has letters, digits and . : _ - only"),
        ("android:A1;reboot", ONE, 2, "a serial has letters, digits and . : _ - only"),
        ("android:A1", ONE, 1, "lost twice"),
        ("ssh:pi@board;reboot", ONE, 2, "the address must be [user@]host[:port]"),
        ("andriod", ONE, 2, "did you mean 'android'"),
    ],
)
def test_wrong_device_is_one_line(tmp_path: Path, device: str, listing: str, exit_code: int, sentence: str) -> None:
    done = profiled(tmp_path, listing, "--device", device, "--runtime", str(aar(tmp_path)))
    last = done.stderr.strip().splitlines()[-1]
    assert (done.exit_code, last.startswith("error: "), done.stdout) == (exit_code, True, "")
    assert sentence in last


@pytest.mark.parametrize(
    ("device", "runtime", "sentence"),
    [
        ("android:A1", "", "a phone needs ONNX Runtime's library for Android, and none is fetched unasked"),
        ("local:runner", "phone.so", "is for aarch64 (bionic), and the device is"),
        ("local:runner", "nothing.whl", "cannot read the runtime nothing.whl: No such file"),
        ("local:runner", "listing", "is no runtime library"),
        ("fake", "phone.so", "fake: it runs no ONNX Runtime"),
    ],
)
def test_wrong_runtime_is_one_line_and_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, runtime: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phone.so").write_bytes(ARM)
    done = profiled(tmp_path, ONE, "--device", device, "--runtime", runtime)
    assert (done.exit_code, len(done.stderr.strip().splitlines()), done.stdout) == (2, 1, "")
    assert sentence in done.stderr
