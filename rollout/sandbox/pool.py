"""A pool of started sandboxes, each used once, and refilled in the background.

Graders call `shared_pool()`; tests and benchmarks make pools of their own. A sandbox starts while
earlier ones work, so a verdict does not wait for a start, and since none is used twice, nothing can
leak from one sample to the next.
"""

import atexit
import itertools
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rollout.sandbox.launch import (
    FIRST_TRANSIENT_UID,
    NUM_TRANSIENT_UIDS,
    compile_harness,
    find_bwrap,
)
from rollout.sandbox.records import Limits, SandboxError, SandboxUnavailableError
from rollout.sandbox.sandbox import START_DEADLINE_S, Sandbox
from rollout.sandbox.session import Session

_uids = itertools.count(os.getpid() * 64)


class SandboxPool:
    """`size` sandboxes stand ready. Safe to use from several threads."""

    def __init__(self, size: int = 4, limits: Limits | None = None) -> None:
        """Start the first sandbox; `limits` are the sessions' default.

        Raises SandboxUnavailableError where no sandbox can run.
        """
        self._bwrap, self._limits = find_bwrap(), limits or Limits()
        compile_harness()
        self._ready: queue.SimpleQueue[Sandbox | SandboxError] = queue.SimpleQueue()
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._closed = False
        # A thread, since a sandbox dies with the thread that started it: this one outlives all.
        self._starter = threading.Thread(target=self._start_wanted, name="sandboxes", daemon=True)
        self._starter.start()
        for _ in range(max(1, size)):
            self._wanted.put(True)
        self.protections = self._probe()

    def _probe(self) -> str:
        """Use the first sandbox to see that this machine can run any."""
        try:
            with self.take() as sandbox:
                return sandbox.protections
        except SandboxError as error:
            self.close()
            raise SandboxUnavailableError(
                f"bubblewrap cannot make a sandbox here, and untrusted code never runs without "
                f"one: {error}. Allow user namespaces (sysctl user.max_user_namespaces, "
                "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns), "
                "or, in a container, give it CAP_SYS_ADMIN or a seccomp profile that allows "
                "unshare and mount"
            ) from error

    @contextmanager
    def take(self) -> Iterator[Sandbox]:
        """A ready sandbox; afterwards it is dead. Raises SandboxError."""
        if self._closed:
            raise SandboxError("this pool is closed: make a new SandboxPool")
        try:
            sandbox = self._ready.get(timeout=START_DEADLINE_S)
        except queue.Empty:
            raise SandboxError(
                f"no sandbox started within {START_DEADLINE_S:.0f} s: the machine is overloaded, "
                "or more threads use this pool than it has sandboxes"
            ) from None
        self._wanted.put(True)
        if isinstance(sandbox, SandboxError):
            raise sandbox
        try:
            sandbox.wait_ready()
            yield sandbox
        finally:
            sandbox.kill()

    @contextmanager
    def open(self, program: str, limits: Limits | None = None) -> Iterator[Session]:
        """A session that runs calls of one program."""
        limits = limits or self._limits
        if limits.disk_bytes != self._limits.disk_bytes:
            raise ValueError(
                f"disk_bytes {limits.disk_bytes} is not this pool's {self._limits.disk_bytes}, "
                "which is fixed when a sandbox starts: make a pool with these limits"
            )
        session = Session(self, program, limits)
        try:
            yield session
        finally:
            session.close()

    def close(self) -> None:
        """Kill what stands ready and stop starting more."""
        self._closed = True
        self._wanted.put(False)
        self._starter.join()

    def __enter__(self) -> "SandboxPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_wanted(self) -> None:
        """Start one sandbox for each True in the queue; at False kill those unused."""
        while self._wanted.get():
            try:
                uid = FIRST_TRANSIENT_UID + next(_uids) % NUM_TRANSIENT_UIDS
                self._ready.put(Sandbox(self._bwrap, self._limits.disk_bytes, uid))
            except SandboxError as error:  # raised to whoever takes it
                self._ready.put(error)
        while not self._ready.empty():
            if isinstance(sandbox := self._ready.get(), Sandbox):
                sandbox.kill()


_shared: dict[int, SandboxPool] = {}  # by process id: a forked child needs a pool of its own
_shared_lock = threading.Lock()


def shared_pool() -> SandboxPool:
    """This process's pool, made at the first call. Raises SandboxUnavailableError."""
    with _shared_lock:
        if os.getpid() not in _shared:
            _shared.clear()
            _shared[os.getpid()] = SandboxPool()
            atexit.register(_shared[os.getpid()].close)
        return _shared[os.getpid()]
