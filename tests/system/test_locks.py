"""Locks: one holder at a time, whatever was killed, wherever it ran, whatever the clocks say."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from cardamage.errors import RunError
from cardamage.system.locks import Holder, hold
from cardamage.system.processes import birth, machine

ELSEWHERE = Holder(
    token="1",
    host="node7",
    machine="another boot/pid:[1]",
    pid=os.getpid(),
    born=birth(os.getpid()),
    since="2026-01-01T00:00:00+00:00",
    job=None,
    restarts=0,
)
"""On another machine, where a process with the id and birth of one here means nothing."""

LONG_S = 600.0
"""Nobody waits for a silence of this length: a test that needed it would be ended."""

HOLDER = """
import sys, time
from pathlib import Path
from cardamage.system.locks import hold

with hold(Path(sys.argv[1]), "the run is running", "wait", beat_s=0.1):
    print("held", flush=True)
    time.sleep(600)
"""

ONE_OF_MANY = """
import os, sys, time
from pathlib import Path
from cardamage.system.locks import hold

journal = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
with hold(Path(sys.argv[1]), "it is held", "wait", wait=True):
    os.write(journal, b"in ")
    time.sleep(0.02)
    os.write(journal, b"out ")
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "train.lock"


def held(lock: Path, **options: object):
    options = {"silence_s": LONG_S, **options}
    return hold(lock, "stage train of runs/x is running", "wait for it", **options)


def leave(lock: Path, **changes: object) -> Holder:
    """Write the lock of a holder that will never release it."""
    holder = Holder(**{**asdict(ELSEWHERE), **changes})
    lock.write_text(json.dumps(asdict(holder)))
    return holder


@contextmanager
def started(lock: Path, *before: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock for as long as it lives."""
    command = [*before, sys.executable, "-c", HOLDER, str(lock)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@contextmanager
def signs_of_life(lock: Path, step_s: float = 1.0) -> Iterator[None]:
    """Touch a lock again and again, as its holder does, by a clock that goes on by ``step_s``."""
    over = threading.Event()

    def beat() -> None:
        clock = time.time()
        while not over.wait(0.05):
            clock += step_s
            os.utime(lock, (clock, clock))

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()


def test_the_second_is_refused_by_name_and_the_third_is_not(lock: Path) -> None:
    with held(lock) as before:
        assert before is None
        with (
            pytest.raises(
                RunError,
                match=rf"^stage train of runs/x is running already, by process {os.getpid()} on "
                rf"\S+, since [0-9T:+-]+; wait for it$",
            ),
            held(lock),
        ):
            pass
    assert not lock.exists()
    with held(lock):
        pass


def test_a_killed_holder_is_found_out_at_once(lock: Path) -> None:
    with started(lock) as process:
        with pytest.raises(RunError, match=f"process {process.pid} on"), held(lock):
            pass
        process.kill()
        process.wait()
        assert lock.exists()
        with held(lock) as before:
            assert before is not None
            assert before.pid == process.pid


def test_a_machine_that_started_anew_holds_nothing(lock: Path) -> None:
    name = os.uname().nodename
    left = leave(lock, host=name)
    with held(lock, beat_s=0.1) as before:
        assert before == left
    leave(lock, machine=machine(), host=name, born="a process before it")
    with held(lock):
        pass


@pytest.mark.parametrize("clock", [-1e9, 0.0, 4e9])
def test_a_silent_holder_elsewhere_is_taken_for_gone_whatever_the_clocks_say(
    lock: Path, clock: float
) -> None:
    leave(lock)
    os.utime(lock, (clock, clock))
    with held(lock, silence_s=0.5) as before:
        assert before == ELSEWHERE


@pytest.mark.parametrize("step_s", [1.0, -3600.0])
def test_a_holder_elsewhere_that_gives_signs_of_life_is_left_alone(
    lock: Path, step_s: float
) -> None:
    """Its clock runs, or jumps back by an hour at every sign."""
    leave(lock)
    refusal = pytest.raises(RunError, match=f"process {os.getpid()} on node7, since 2026")
    with signs_of_life(lock, step_s), refusal, held(lock):
        pass


@pytest.mark.parametrize("changes", [{"host": os.uname().nodename}, {"job": "77"}])
def test_a_holder_that_lives_in_spite_of_appearances_is_left_alone(
    lock: Path, changes: dict[str, str]
) -> None:
    """On another machine of this one's name, or in a job that this machine's SLURM may not know."""
    leave(lock, **changes)
    with signs_of_life(lock), pytest.raises(RunError, match="running already"), held(lock):
        pass


def test_a_job_that_was_queued_again_starts_at_once(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = leave(lock, job="77", restarts=1)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    with held(lock) as before:
        assert before == left


def test_a_job_elsewhere_is_looked_at_for_the_whole_silence(lock: Path) -> None:
    left = leave(lock, job="77")
    begun = time.monotonic()
    with held(lock, beat_s=0.1, silence_s=1.0) as before:
        assert before == left
    assert time.monotonic() - begun >= 1.0


@pytest.mark.parametrize("content", ["", '{"token": "1"', "[]", '{"colour": "red"}', "\0" * 20])
def test_a_lock_cut_short_by_a_kill_is_taken_over(lock: Path, content: str) -> None:
    lock.write_text(content)
    with held(lock, silence_s=0.5) as before:
        assert before is None


def test_of_many_one_at_a_time_gets_what_a_dead_one_left(lock: Path, tmp_path: Path) -> None:
    leave(lock, machine=machine(), born="a process before it")
    command = [sys.executable, "-c", ONE_OF_MANY, lock, tmp_path / "journal"]
    many = [subprocess.Popen(command) for _ in range(8)]
    assert [process.wait() for process in many] == [0] * 8
    assert (tmp_path / "journal").read_text() == "in out " * 8
    assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_a_full_disk_leaves_no_lock(lock: Path, tmp_path: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))\n"
    process = subprocess.run(
        [sys.executable, "-c", limited + HOLDER, lock], capture_output=True, text=True, check=False
    )
    assert re.search(rf"OSError: \[Errno 27\] File too large: '{lock}'$", process.stderr.strip())
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_slept_while_another_took_over_ends(lock: Path) -> None:
    """As a laptop that was closed: here in a space of process ids of its own, and stopped."""
    apart = ("unshare", "--user", "--map-root-user", "--pid", "--fork")
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no user its own space of process ids")
    with started(lock, *apart) as outer:
        inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
        with pytest.raises(RunError, match="already, by process 1 on"), held(lock):
            pass
        os.kill(inner, signal.SIGSTOP)
        with held(lock, silence_s=1.0) as before:
            assert before is not None
            os.kill(inner, signal.SIGCONT)
            _, said = outer.communicate(timeout=180)
            assert outer.returncode == 1
            assert re.search(
                rf"error: .*train\.lock was taken over by process {os.getpid()} on .*, so this "
                rf"process ends",
                said,
            )
            assert json.loads(lock.read_text())["pid"] == os.getpid()
