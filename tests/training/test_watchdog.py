"""The watchdog, on processes that really hang."""

import subprocess
import sys
import time

import pytest

from cardamage.errors import ConfigError
from cardamage.training.watchdog import LIMIT, Watchdog, limit_from_environment

PROGRAM = """
import ctypes, signal, time
from cardamage.training.watchdog import Watchdog

def wait_for_ever():
    {hang}

with Watchdog(0.5, grace_s=0.2) as watchdog:
    for step in range(3):
        watchdog.pet()
        time.sleep(0.3)
    print("three steps", flush=True)
    wait_for_ever()
"""


def ends(hang: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(hang=hang)],
        env={"RANK": "3", "SLURMD_NODENAME": "n7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_process_that_hangs_says_where_and_ends_with_76():
    result = ends("time.sleep(60)")
    assert (result.returncode, result.stdout) == (76, "three steps\n"), result.stderr
    first, *stacks = result.stderr.splitlines()
    assert first == ("error: process 3 on n7 got nowhere for 0.5 s; its stacks, latest call first:")
    assert all(line.startswith("[process 3 on n7] ") for line in stacks)
    assert any("in wait_for_ever" in line for line in stacks)


def test_c_code_that_keeps_the_interpreters_lock_is_ended_too():
    result = ends("ctypes.PyDLL(None).sleep(60)")
    assert (result.returncode, result.stdout) == (1, "three steps\n"), result.stderr
    assert "in wait_for_ever" in result.stderr


def test_start_up_gets_three_limits_and_leaving_ends_the_watch():
    with Watchdog(0.5, grace_s=0.1):
        time.sleep(1)
    time.sleep(1)


def test_without_a_limit_nothing_is_watched(monkeypatch):
    monkeypatch.delenv(LIMIT, raising=False)
    assert limit_from_environment() == 0
    with Watchdog(0) as watchdog:
        watchdog.pet()
        time.sleep(0.6)


def test_the_limit_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(LIMIT, "1200.5")
    assert limit_from_environment() == 1200.5


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(monkeypatch, text):
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(ConfigError, match=f'{LIMIT} is "{text}"; give seconds, or 0'):
        limit_from_environment()
