import subprocess
from pathlib import Path

import pytest

from latency.devices.remote_shell import finish, read_answer, script


def answer_of(*command: str) -> tuple[int | None, str]:
    answer = read_answer(finish(["sh", "-c", script(command, "mark")], timeout_s=120).out, "mark")
    return answer.code, answer.out


@pytest.mark.parametrize("word", ["a b", "it's", '"', "$HOME", "`id`", "\\n", "*", "", "a\nb", "ü", "-n"])
def test_words_arrive_as_they_are(word: str) -> None:
    assert answer_of("printf", "%s|", "x", word) == (0, f"x|{word}|")


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes_arrive(code: int) -> None:
    assert answer_of("sh", "-c", f"exit {code}") == (code, "")


def test_missing_program_is_127() -> None:
    assert answer_of("no-such-program")[0] == 127


def test_killed_program_is_128_and_its_signal() -> None:
    assert answer_of("sh", "-c", "kill -9 $$")[0] == 137


def test_the_process_id_is_the_commands_own() -> None:
    answer = read_answer(finish(["sh", "-c", script(["sh", "-c", "echo $$"], "mark")], timeout_s=120).out, "mark")
    assert answer.out == f"{answer.pid}\n"


def test_greeting_before_the_answer_is_dropped() -> None:
    assert read_answer(b"Last login: today\nmark 7\nout\n\nmark 0\n", "mark").out == "out\n"


@pytest.mark.parametrize("cut", range(len(b"mark 7\nout\n\nmark 0")))
def test_no_part_of_an_answer_is_taken_for_all_of_it(cut: int) -> None:
    assert read_answer(b"mark 7\nout\n\nmark 0"[:cut], "mark").code is None


def test_lines_of_windows_and_old_phones_are_read() -> None:
    assert read_answer(b"mark 7\r\nout\r\n\r\nmark 3\r\n", "mark") == read_answer(b"mark 7\nout\n\nmark 3\n", "mark")


def test_what_is_no_text_is_no_error() -> None:
    assert read_answer(b"mark 7\n\xff\xfe\n\nmark 0\n", "mark").code == 0


def test_overrun_is_told() -> None:
    done = finish(["sleep", "60"], timeout_s=0.2)
    assert (done.timed_out, done.says) == (True, "no end in time")


def test_last_words_are_the_lines_with_errors(tmp_path: Path) -> None:
    done = finish(["sh", "-c", "echo 'adb: error: disk full' >&2; echo 0 files >&2; exit 1"], timeout_s=120)
    assert done.says == "adb: error: disk full"


def test_telemetry_of_onnxruntime_is_off() -> None:
    assert answer_of("sh", "-c", "echo $ORT_DISABLE_TELEMETRY") == (0, "1\n")


def test_login_shells_need_no_bash() -> None:
    done = subprocess.run(["dash", "-c", script(["echo", "a"], "mark")], capture_output=True, check=True, timeout=120)
    assert read_answer(done.stdout, "mark").out == "a\n"
