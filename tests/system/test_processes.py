import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cardamage.system.processes import birth, is_alive, with_environment

SLEEP = [sys.executable, "-c", "print(flush=True); import time; time.sleep(60)"]


NAME = f"of {os.getpid()}"
"""The variable's value; tests that run beside this one in other processes have others."""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP, env={**os.environ, "SLEEPER": NAME}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it runs Python by now, not a fork of this process
    yield process
    process.kill()
    process.communicate()


def test_birth_names_one_process(sleeper: subprocess.Popen[bytes]) -> None:
    born = birth(sleeper.pid)
    assert born == birth(sleeper.pid)
    assert is_alive(sleeper.pid, born)
    assert not is_alive(sleeper.pid, "another boot/1")
    assert not is_alive(os.getpid(), born)


def test_ended_process_is_not_alive_even_before_it_is_collected(
    sleeper: subprocess.Popen[bytes],
) -> None:
    born = birth(sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert birth(sleeper.pid) is None
    assert not is_alive(sleeper.pid, born)
    sleeper.wait()
    assert birth(sleeper.pid) is None


def test_nothing_known_is_not_alive() -> None:
    assert not is_alive(None, None)
    assert not is_alive(os.getpid(), None)


def test_processes_are_found_by_their_environment(
    sleeper: subprocess.Popen[bytes],
) -> None:
    assert with_environment("SLEEPER", NAME) == [sleeper.pid]
    assert with_environment("SLEEPER", "of") == []
    sleeper.kill()
    sleeper.wait()
    assert with_environment("SLEEPER", NAME) == []
