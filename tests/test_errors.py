"""How a program ends: the exit status, and what it prints."""

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
