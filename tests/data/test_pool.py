import os
import signal
import subprocess
import sys
import time

import pytest

from cardamage.system.processes import with_environment

SLEEPERS = """
import sys, time
from cardamage.data.pool import interrupts_held, spawned_pool
pool = spawned_pool(2)
with interrupts_held():
    futures = [pool.submit(time.sleep, 30) for _ in range(2)]
time.sleep(30)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_their_parent_and_leave_interrupts_to_it(how):
    name = f"POOL_OF_{os.getpid()}"
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPERS],
        env={**os.environ, name: "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    await_processes(name, 4)  # the parent, two sleepers, multiprocessing's resource tracker
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
        time.sleep(0.3)
        assert len(with_environment(name, "1")) == 4  # the parent waits for what it has begun
    process.kill()
    _, printed = process.communicate(timeout=120)  # everybody let go of the pipe
    assert "SpawnProcess" not in printed
    await_processes(name, 0)


def await_processes(name: str, count: int) -> None:
    deadline = time.monotonic() + 30
    while len(with_environment(name, "1")) != count:
        assert time.monotonic() < deadline
        time.sleep(0.05)
