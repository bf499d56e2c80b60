"""Stopping a job: the first SIGTERM or Ctrl-C is a wish, the second ends the process at once.

The driver hears the signal. While a stage trains, it passes the wish on to the event log's actor,
which answers it to the workers when they tell their phase (`EventLog.now`). Nobody is interrupted:
the optimizer step under way ends, and is committed.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from threading import Thread
from typing import Any

POLL_INTERVAL_S = 0.2  # between two looks of the driver at the wish
_HEARD = b"stopping after the step under way; once more ends at once, without a checkpoint\n"


class JobStoppedError(Exception):
    """A job that was asked to stop, and has; running it again continues."""

    def __init__(self, message: str, stage: str | None = None, step: int | None = None) -> None:
        super().__init__(message)
        self.stage = stage  # None: no stage was under way
        self.step = step  # of the stage; its checkpoint is the last one

    @classmethod
    def at(cls, stage: str, step: int) -> "JobStoppedError":
        """Stopped in a stage, with this step's checkpoint committed."""
        return cls(f"stopped at step {step} of stage {stage}", stage, step)


class StopRequest:
    """Whether this process was asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    @property
    def requested(self) -> bool:
        """True from the first signal on."""
        return self.signal_number is not None

    def listen(self) -> None:
        """Hear SIGTERM and SIGINT from now on. Called in the main thread, after `ray.init`.

        Ray's own handler of SIGTERM prints a stack of addresses; it is replaced.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _: Any) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.signal_number = number
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _HEARD)  # safe in a handler

    def check(self, where: str) -> None:
        """Raise JobStoppedError, saying `where`, when this process was asked to stop."""
        if self.requested:
            raise JobStoppedError(f"stopped {where}")


@contextmanager
def shielded_children() -> Iterator[None]:
    """Processes that are started meanwhile never hear SIGTERM; Ray does the same with SIGINT.

    A signal to the whole group, as `timeout` sends it, would otherwise end this process's own Ray
    before the job has committed.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def run_until_told(work: Callable[[], Any], stop: StopRequest, tell: Callable[[], None]) -> None:
    """Run `work` to its end and raise what it raises; `tell` once when a stop is wished meanwhile.

    `work` runs in a thread: in the main one, Ray Train's `fit` would take Ctrl-C over and abort
    the workers before they have committed.
    """
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed to the thread that waits
            done.set_exception(error)
        else:
            done.set_result(None)

    Thread(target=run, name="work", daemon=True).start()
    told = False
    while not done.done():
        wait([done], timeout=POLL_INTERVAL_S)
        if stop.requested and not told:
            tell()
            told = True
    done.result()
