"""How a program ends: the exit status, and what it prints."""

import shlex
import signal
import subprocess
import sys

import pytest

from cardamage import errors

PROGRAM = """
import sys
from cardamage.errors import *

def main():
    {body}

run_program(main)
"""


def ends(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_done():
    result = ends("print('result')")
    assert (result.returncode, result.stdout, result.stderr) == (0, "result\n", "")


@pytest.mark.parametrize(
    "error", ["UserError", "ConfigError", "DataError", "RunError", "CheckpointError"]
)
def test_mistake_of_the_user_is_one_line(error: str):
    result = ends(f"raise {error}('x is 3; it must be 4')")
    assert result.returncode == 2
    assert result.stderr == "error: x is 3; it must be 4\n"
    assert result.stdout == ""


def test_failure_that_is_not_the_users():
    result = ends("raise CardamageError('stage train failed')")
    assert (result.returncode, result.stderr) == (1, "error: stage train failed\n")


def test_stopped_on_request():
    result = ends("raise Stopped('saved after epoch 3')")
    assert (result.returncode, result.stderr) == (75, "stopped: saved after epoch 3\n")


def test_interrupt_from_the_keyboard():
    result = ends("raise KeyboardInterrupt")
    assert result.returncode == 75
    assert result.stderr.startswith("stopped: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_asked_to_stop_also_where_a_shell_started_it_in_the_background(number: str):
    # Shells make their background jobs ignore SIGINT, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = ends(f"import os, signal; os.kill(os.getpid(), signal.{number})")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.returncode == 75
    assert result.stderr == "stopped: interrupted; the same command resumes\n"


def test_asked_to_stop_twice_it_still_cleans_up():
    body = (
        "import os, signal\n"
        "    try: os.kill(os.getpid(), signal.SIGTERM)\n"
        "    finally: os.kill(os.getpid(), signal.SIGTERM); print('cleaned up')"
    )
    result = ends(body)
    assert (result.returncode, result.stdout) == (75, "cleaned up\n")


def test_defect_keeps_its_traceback():
    result = ends("1 / 0")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError" in result.stderr


def test_argparse_statuses_pass_through():
    assert ends("sys.exit(0)").returncode == 0
    assert ends("import argparse; argparse.ArgumentParser().parse_args(['-x'])").returncode == 2


def test_every_user_error_ends_with_two():
    for error in errors.UserError.__subclasses__():
        assert error.exit_status == 2


def test_a_reader_that_has_seen_enough_is_no_defect():
    script = "from cardamage.errors import run_program\nrun_program(lambda: print('x' * 200_000))"
    result = subprocess.run(
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} | head -c 1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "x"
    assert result.stderr == ""
