"""The first signal is a wish, the second an end; the wish reaches those who work."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from train.stop import JobStoppedError, StopRequest, run_until_told, shielded_children


@pytest.fixture
def stop():
    """A request that listens in this process, whose own handlers come back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    request = StopRequest()
    request.listen()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_wish_and_the_second_ends_at_once(stop, number):
    stop.check("before anything")
    signal.raise_signal(number)
    assert stop.signal_number == number
    with pytest.raises(JobStoppedError, match=r"^stopped before stage srl$"):
        stop.check("before stage srl")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_who_works_in_the_background_is_told_of_the_wish_once_and_may_end_in_its_own_time(stop):
    told = []

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # heard by the main thread, which waits
        deadline = time.monotonic() + 30
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(1)

    run_until_told(work, stop, lambda: told.append(1))
    assert told == [1]


def test_work_that_nobody_stops_is_not_told_and_its_error_is_raised():
    told = []
    with pytest.raises(ZeroDivisionError):
        run_until_told(lambda: 1 // 0, StopRequest(), lambda: told.append(1))
    assert told == []


def test_a_second_signal_ends_the_wait_for_work(stop):
    def work() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        run_until_told(work, stop, lambda: None)


def test_a_shielded_child_outlives_a_signal_to_the_whole_group_and_its_parent_hears_it():
    program = (
        "import os, signal, subprocess, sys\n"
        "from train.stop import StopRequest, shielded_children\n"
        "stop = StopRequest()\n"
        "with shielded_children():\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        "    stop.listen()\n"
        "os.killpg(0, signal.SIGTERM)\n"
        "print(stop.signal_number, child.poll())\n"
        "child.kill()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["15", "None"], done.stderr
    assert "stopping after the step under way" in done.stderr


def test_the_shield_is_taken_away_again():
    with pytest.raises(ZeroDivisionError), shielded_children():
        raise ZeroDivisionError
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
