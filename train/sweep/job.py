"""A trial's job: a process of its own (`python -m train`), its slot, its validations, its end.

No Ray here; the job brings its own. A job that stands in its folder is gone on with.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from train.claim import BUSY_EXIT_CODE
from train.sweep.trials import (
    JOB_FILE,
    LOG_FILE,
    OUT,
    REPORT_FILE,
    Validation,
    validations,
)

TRAIN = (sys.executable, "-m", "train")
POLL_INTERVAL_S = 0.5
STOP_GRACE_S = 180.0  # of the step under way and its checkpoint
MAX_WORDS = 500  # characters of a failed job's log, in the error


class JobFailedError(RuntimeError):
    """A trial's job ended without its report."""


class TrialJob:
    """Runs the job of the trial in `folder`. At most `num_slots` jobs run at once.

    `command` takes `--spec` and `--out`, as `python -m train` does.
    """

    def __init__(
        self,
        folder: Path,
        slots: Path,
        num_slots: int,
        environment: Mapping[str, str],
        command: Sequence[str] = TRAIN,
    ) -> None:
        self.folder, self.out = folder, folder / OUT
        self._slots, self._num_slots = slots, num_slots
        self._environment, self._command = dict(environment), tuple(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._told = 0

    def next_validation(self) -> Validation | None:
        """Wait for the job's next validation; None when it has ended with its report.

        Raises JobFailedError.
        """
        while True:
            found = validations(self.out)
            if len(found) > self._told:
                self._told += 1
                return found[self._told - 1]
            if (self.out / REPORT_FILE).exists():
                self._wait()
                return None
            if self._process is None:
                self._start()
            elif (code := self._process.poll()) is not None:
                self._process = None
                # Busy: its process of a sweep that was killed has not ended yet.
                if code != BUSY_EXIT_CODE and not (self.out / REPORT_FILE).exists():
                    raise JobFailedError(f"{self.folder}: status {code}: {self._last_words()}")
            time.sleep(POLL_INTERVAL_S)

    def run(self) -> None:
        """Run the job to its end. Raises JobFailedError; whatever is raised, no job is left."""
        try:
            while self.next_validation() is not None:
                pass
        finally:
            self.stop()

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask the job to stop, wait until it has committed its step, then kill what is left."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _wait(self) -> None:
        """Let a job that has written its report end by itself."""
        if self._process is not None:
            try:
                self._process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
            self.stop()

    def _start(self) -> None:
        """Start the job if a slot is free."""
        slot = take_slot(self._slots, self._num_slots)
        if slot is None:
            return
        job = ("--spec", str(self.folder / JOB_FILE), "--out", str(self.out))
        tied = (sys.executable, "-m", "train.sweep.tied", str(os.getpid()))
        try:
            with (self.folder / LOG_FILE).open("ab") as log:
                self._process = subprocess.Popen(
                    [*tied, *self._command, *job],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a group of its own, which can be killed
                    pass_fds=[slot],
                )
        finally:
            os.close(slot)  # the job holds it from here on, also when this process is killed

    def _last_words(self) -> str:
        lines = (self.folder / LOG_FILE).read_text(encoding="utf-8", errors="replace").splitlines()
        return (
            " / ".join(line for line in lines if line.strip())[-MAX_WORDS:]
            if lines
            else "no output"
        )


def take_slot(folder: Path, num_slots: int) -> int | None:
    """A descriptor that holds one of the slots until all its copies are closed; None: all taken."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(num_slots):
        slot = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(slot, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(slot)
        else:
            return slot
    return None
