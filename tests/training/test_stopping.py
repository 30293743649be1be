"""Requests to stop: in one process, and agreed between several."""

import os
import signal

import pytest
from accelerate import Accelerator

from cardamage.training.stopping import Request, StopRequests

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


@pytest.fixture
def stop():
    """Requests to this process; what its signals do is as before afterwards."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield StopRequests(Accelerator(cpu=True))
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_a_request(stop, number):
    with stop:
        assert not stop.agreed()
        os.kill(os.getpid(), number)
        assert stop.agreed()


def test_a_save_is_asked_for_once_and_a_stop_comes_first(stop):
    with stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.agreed() is Request.SAVE
        assert stop.agreed() is Request.NOTHING
        assert stop.agreed(save_due=True) is Request.SAVE
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.agreed(save_due=True) is Request.STOP


def test_once_it_was_agreed_to_stop_no_signal_disturbs_the_end(stop):
    with stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.agreed()
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGUSR2)


def test_after_undisturbed_work_signals_do_what_they_did_before(stop):
    before = [signal.getsignal(number) for number in NUMBERS]
    with stop:
        assert not stop.agreed()
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_a_second_interrupt_is_not_patient(stop):
    with stop:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


PROGRAM = """
import os, signal
from cardamage.training.distributed import start_accelerator
from cardamage.training.stopping import StopRequests

accelerator = start_accelerator("no")
with StopRequests(accelerator) as stop:
    for step in range(10):
        if stop.agreed():
            # One write, so that the lines of two processes do not run into each other.
            os.write(1, f"{accelerator.process_index} stops at {step}\\n".encode())
            break
        if step == 3 and accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGUSR2)
accelerator.end_training()
"""


@pytest.mark.distributed
def test_all_processes_stop_at_the_step_at_which_one_was_asked(program, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    result = program.torchrun(2, tmp_path / "program.py")
    assert sorted(result.stdout.splitlines()) == ["0 stops at 4", "1 stops at 4"]
