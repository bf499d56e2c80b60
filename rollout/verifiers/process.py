"""Killable processes for code that may hang on a sample.

A `ProcessPool` keeps child processes that each run one function, named as "module:function", on
JSON values. A call has one hard deadline: a child that overruns it is killed and replaced, and a
spare is warm, so that the next call finds the pool at full strength. A child that dies by itself
is replaced and the call repeated once. Children share nothing with the caller but a socket and
the module search path; above all no environment variables, where keys stand.

It isolates time and memory, not malice: code from a sample belongs into the sandbox. A child ends
with its parent: it watches the parent's process id, and the kernel's limit on processor time ends
one that is too busy to watch.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rollout.verifiers.base import GraderError

START_DEADLINE_S = 120.0  # for importing sympy and its like on a busy machine
MEMORY_LIMIT_BYTES = 4 * 2**30  # address space of a child
CPU_MARGIN_S = 2  # processor time beyond the deadline, after which the kernel ends an orphan
PARENT_POLL_S = 0.5
EXIT_DEADLINE_S = 10.0  # from the socket's end to the process's
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "NLTK_DATA", "LD_LIBRARY_PATH")


class CallOverrunError(Exception):
    """The call took longer than its deadline, or more memory than its limit.

    `stage` is what the function had last marked: it tells the sample's fault from the reference's.
    """

    def __init__(self, what: str, stage: str | None) -> None:
        super().__init__(what)
        self.stage = stage


class ProcessError(GraderError):
    """The child could not be started, died twice, or raised."""


class _Died(Exception):  # noqa: N818 (a signal between two functions of this module)
    """The child ended by itself."""


class WorkerProcess:
    """One child process. Not for several threads at once; `ProcessPool` sees to that."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._connection, theirs = Pipe()
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= {
            "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            "OMP_NUM_THREADS": "1",
            "MPLCONFIGDIR": tempfile.gettempdir(),
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rollout.verifiers.process", target, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._started_s = time.monotonic()
        self._is_ready = False

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def alive(self) -> bool:
        """True while the child runs."""
        return self._process.poll() is None

    def is_ready(self) -> bool:
        """True when a call would begin at once."""
        return self._is_ready or self._connection.poll(0)

    def wait_until_ready(self) -> None:
        """Wait until the child has imported its function. Raises ProcessError."""
        if self._is_ready:
            return
        left_s = START_DEADLINE_S - (time.monotonic() - self._started_s)
        try:
            if not self._connection.poll(max(0.0, left_s)):
                raise ProcessError(
                    f"waited {START_DEADLINE_S:.0f} s for a process with {self.target} to start; "
                    "free the machine's processors"
                )
            kind, value = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):
            raise ProcessError(
                f"a process with {self.target} ended with code {self._process.wait()} before it "
                "was ready; its message is in the log"
            ) from None
        if kind != "ready":
            raise ProcessError(f"a process with {self.target} could not start: {value}")
        self._is_ready = True

    def call(self, argument: Any, deadline_s: float) -> Any:
        """Return the function's value. Raises CallOverrunError, ProcessError, or _Died."""
        self.wait_until_ready()
        ends_s = time.monotonic() + deadline_s
        stage = None
        try:
            self._connection.send_bytes(json.dumps([argument, deadline_s]).encode())
            while self._connection.poll(max(0.0, ends_s - time.monotonic())):
                kind, value = json.loads(self._connection.recv_bytes())
                if kind == "value":
                    return value
                if kind == "memory":
                    raise CallOverrunError(f"used more than {value} bytes", stage)
                if kind == "raised":
                    raise ProcessError(f"{self.target} raised {value}")
                stage = value
        except (EOFError, OSError):
            if self._process.wait(timeout=EXIT_DEADLINE_S) == -signal.SIGXCPU:
                raise CallOverrunError(f"ran longer than {deadline_s} s", stage) from None
            raise _Died(f"code {self._process.returncode}") from None
        raise CallOverrunError(f"ran longer than {deadline_s} s", stage)

    def kill(self) -> None:
        """Kill the child, without waiting: freeing much memory takes the kernel a while."""
        self._process.kill()
        self._connection.close()

    def close(self) -> None:
        """Kill the child and reap it."""
        self.kill()
        self._process.wait()


class ProcessPool:
    """Up to `size` calls at once, each in its own child; one more child is kept as a spare."""

    def __init__(self, target: str, size: int) -> None:
        self.target = target
        self.size = size
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[WorkerProcess] = []
        self._dying: list[WorkerProcess] = []  # killed, not yet reaped
        self._num_busy = 0
        self._num_wanted = 0  # the most that were busy at once, and the spare

    def call(self, argument: Any, deadline_s: float) -> Any:
        """Call the function on a JSON value and return its JSON value.

        Raises CallOverrunError when the deadline passes or the memory ends, ProcessError when the
        function raises, or its process dies twice.
        """
        with self._slots:
            try:
                return self._call_once(argument, deadline_s)
            except _Died:
                # Acceptable once: a process that the system ended, for want of memory perhaps.
                pass
            try:
                return self._call_once(argument, deadline_s)
            except _Died as error:
                raise ProcessError(f"a process with {self.target} died twice: {error}") from None

    def _call_once(self, argument: Any, deadline_s: float) -> Any:
        worker = self._take()
        try:
            value = worker.call(argument, deadline_s)
        except BaseException:
            # Whatever happened: after an error the child's state is unknown.
            worker.kill()
            self._give_back(worker, killed=True)
            raise
        self._give_back(worker)
        return value

    def _take(self) -> WorkerProcess:
        """A ready child if there is one, else the one that has been starting for longest."""
        with self._lock:
            for dead in [worker for worker in self._idle if not worker.alive()]:
                self._idle.remove(dead)
                dead.close()
            if not self._idle:
                self._idle.append(WorkerProcess(self.target))
            worker = next((w for w in self._idle if w.is_ready()), self._idle[0])
            self._idle.remove(worker)
            self._num_busy += 1
            self._num_wanted = max(self._num_wanted, self._num_busy + 1)
            self._fill()
        return worker

    def _give_back(self, worker: WorkerProcess, *, killed: bool = False) -> None:
        """Take back a child, or start another for one that was killed."""
        with self._lock:
            self._num_busy -= 1
            self._dying = [dying for dying in self._dying if dying.alive()]
            (self._dying if killed else self._idle).append(worker)
            self._fill()

    def _fill(self) -> None:
        while len(self._idle) + self._num_busy < self._num_wanted:
            self._idle.append(WorkerProcess(self.target))

    def pids(self) -> list[int]:
        """Process ids of the idle children that are alive."""
        with self._lock:
            return [worker.pid for worker in self._idle if worker.alive()]

    def close(self) -> None:
        """Kill and reap all children that no call holds."""
        with self._lock:
            for worker in [*self._idle, *self._dying]:
                worker.close()
            self._idle, self._dying = [], []


@functools.cache
def _pool_of(target: str, owner_pid: int) -> ProcessPool:
    pool = ProcessPool(target, size=max(1, len(os.sched_getaffinity(0))))
    atexit.register(pool.close)
    return pool


def shared_pool(target: str) -> ProcessPool:
    """This process's pool for `target`: all graders of a type share it."""
    return _pool_of(target, os.getpid())


def call_within(target: str, argument: Any, deadline_s: float) -> Any:
    """Call `target` in this process's pool; see `ProcessPool.call`."""
    return shared_pool(target).call(argument, deadline_s)


# --- in the child -------------------------------------------------------------------------------


def _watch_parent(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(PARENT_POLL_S)
    os._exit(0)


def _limit_cpu(deadline_s: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + deadline_s) + CPU_MARGIN_S
    _limit(resource.RLIMIT_CPU, seconds)


def _limit(which: int, bound: int) -> None:
    """Set a soft limit, never above the hard one that this process was given."""
    hard = resource.getrlimit(which)[1]
    # Below the hard limit: at it, the kernel kills a process at once instead of saying why.
    soft = bound if hard == resource.RLIM_INFINITY else min(bound, hard - 1)
    resource.setrlimit(which, (soft, hard))


def _serve(function: Callable[[Any, Callable[[str], None]], Any], connection: Connection) -> None:
    def send(kind: str, value: Any = None) -> None:
        connection.send_bytes(json.dumps([kind, value]).encode())

    send("ready")
    while True:
        argument, deadline_s = json.loads(connection.recv_bytes())
        _limit_cpu(deadline_s)
        try:
            reply = ("value", function(argument, functools.partial(send, "stage")))
        except MemoryError:
            reply = ("memory", resource.getrlimit(resource.RLIMIT_AS)[0])
        except Exception as error:
            # Reported, and raised by the caller's side.
            reply = ("raised", f"{type(error).__name__}: {error}"[:2000])
        send(*reply)


def main(target: str, fd: int) -> None:
    """Serve `target`, a function of (argument, mark), until the parent closes the socket."""
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    _limit(resource.RLIMIT_AS, MEMORY_LIMIT_BYTES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, name = target.partition(":")
    function = getattr(importlib.import_module(module), name)
    with contextlib.suppress(EOFError, OSError):  # the parent closed the socket: the end
        _serve(function, Connection(fd))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
