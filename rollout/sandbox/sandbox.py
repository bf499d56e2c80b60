"""One sandbox, seen from outside: started, given a program, killed. Each is used exactly once.

Who calls it: `pool.py` starts sandboxes, `session.py` runs calls in them.
"""

import contextlib
import json
import marshal
import os
import secrets
import select
import signal
import socket
import struct
import subprocess
import time
from typing import Any

from rollout.sandbox.launch import sandbox_command
from rollout.sandbox.records import SandboxError

START_DEADLINE_S = 30.0
DEATH_DEADLINE_S = 30.0
STDERR_BYTES = 4000
MAX_FRAME_BYTES = 256 << 20


class SandboxVanishedError(Exception):
    """The sandbox ended, hung or broke its protocol while the program was in it."""


class Sandbox:
    """A running bubblewrap with the harness as its process 1."""

    def __init__(self, bwrap: str, disk_bytes: int, uid: int) -> None:
        """Start it; returns at once. The calling thread must outlive the sandbox (PDEATHSIG)."""
        self._control, theirs = socket.socketpair()
        self._status, status_writer = os.pipe()
        try:
            self._bwrap = subprocess.Popen(
                sandbox_command(bwrap, disk_bytes, uid, status_writer),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[status_writer],
                env={},
                cwd="/",
            )
        except OSError as error:
            self._control.close()
            os.close(self._status)
            raise SandboxError(f"{bwrap} does not start: {error}") from error
        finally:
            theirs.close()
            os.close(status_writer)
        self._supervisor = os.pidfd_open(self._bwrap.pid)
        self._process_1: int | None = None  # a pidfd
        self._last_words: str | None = None  # once it is dead
        self.pid_namespace: int | None = None  # its inode, known once ready
        self.protections = ""  # what the harness could install, in words

    def wait_ready(self) -> None:
        """Block until the harness has confined itself. Raises SandboxError."""
        deadline_s = time.monotonic() + START_DEADLINE_S
        try:
            self._find_process_1(deadline_s)
            _, protections = self._receive(deadline_s, num_fields=2)
            self.protections = protections.decode()
        except (SandboxVanishedError, OSError, KeyError, ValueError) as error:
            raise SandboxError(f"a sandbox did not start ({error}): {self.kill()}") from error

    def _find_process_1(self, deadline_s: float) -> None:
        """Read bubblewrap's status line, which names process 1 as this process sees it."""
        line = b""
        while not line.endswith(b"\n"):
            ready = _readable([self._status], deadline_s - time.monotonic())
            if not ready or not (part := os.read(self._status, 1)):
                raise SandboxVanishedError("bubblewrap reported no process")
            line += part
        status = json.loads(line)
        self._process_1 = os.pidfd_open(status["child-pid"])
        self.pid_namespace = status.get("pid-namespace")

    def load(self, program: str, limits: dict[str, Any]) -> None:
        """Hand over the program; calls follow."""
        self._send({"program": program, "limits": limits}, START_DEADLINE_S)

    def call(self, call: dict[str, Any], deadline_s: float) -> list[bytes]:
        """Run one call; its facts, stdout, stderr and report. Raises SandboxVanishedError.

        The nonce is made after the harness has reported that every process of the call is dead.
        """
        self._send({"call": call}, deadline_s)
        ends_s = time.monotonic() + deadline_s
        if self._receive(ends_s, num_fields=1) != [b"done"]:
            raise SandboxVanishedError("the harness was not the one to answer")
        nonce = secrets.token_hex(16)
        self._send({"nonce": nonce}, deadline_s)
        answered, *record = self._receive(ends_s, num_fields=5)
        if not secrets.compare_digest(answered, nonce.encode()):
            raise SandboxVanishedError("the answer does not carry the nonce")
        return record

    def supervisor_was_killed(self) -> bool:
        """True when bubblewrap itself, which lies outside the sandbox, ended by a signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            # its end follows that of process 1 within moments
            return self._bwrap.wait(timeout=1.0) < 0
        return False

    def kill(self) -> str:
        """Kill every process of the sandbox and wait until none is left; bubblewrap's last words.

        Process 1 takes its whole pid namespace along before its own end shows in its pidfd.
        """
        if self._last_words is not None:
            return self._last_words
        self._last_words = ""
        if self._process_1 is None:  # never waited for
            with contextlib.suppress(SandboxVanishedError, OSError, KeyError, ValueError):
                self._find_process_1(time.monotonic() + DEATH_DEADLINE_S)
        self._control.close()
        if self._process_1 is None:
            self._bwrap.kill()
        else:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                signal.pidfd_send_signal(self._process_1, signal.SIGKILL)
            ended = _readable([self._process_1], DEATH_DEADLINE_S)
            os.close(self._process_1)
            if not ended:
                raise SandboxError(
                    f"a sandbox did not end within {DEATH_DEADLINE_S:.0f} s of being killed: look "
                    "for processes in state D on this machine"
                )
        _, stderr = self._bwrap.communicate(timeout=DEATH_DEADLINE_S)
        os.close(self._status)
        os.close(self._supervisor)
        self._last_words = stderr[-STDERR_BYTES:].decode("utf-8", "replace").strip()
        return self._last_words

    def _send(self, message: dict[str, Any], timeout_s: float) -> None:
        body = marshal.dumps(message)
        self._control.settimeout(timeout_s)
        try:
            self._control.sendall(struct.pack(">I", len(body)) + body)
        except OSError as error:
            raise SandboxVanishedError(f"the harness does not listen: {error}") from error

    def _receive(self, ends_s: float, num_fields: int) -> list[bytes]:
        (size,) = struct.unpack(">I", self._receive_exactly(4, ends_s))
        if size > MAX_FRAME_BYTES:
            raise SandboxVanishedError(f"the harness announced {size} bytes")
        rest, fields = self._receive_exactly(size, ends_s), []
        while len(rest) >= 4:
            (size,) = struct.unpack(">I", rest[:4])
            fields.append(rest[4 : 4 + size])
            rest = rest[4 + size :]
        if len(fields) != num_fields or rest:
            raise SandboxVanishedError(f"the harness sent {len(fields)} fields, not {num_fields}")
        return fields

    def _receive_exactly(self, size: int, ends_s: float) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            left_s = max(0.0, ends_s - time.monotonic())
            ready = _readable([self._control.fileno(), self._supervisor], left_s)
            if not ready:
                raise SandboxVanishedError("the harness is silent")
            if self._control.fileno() not in ready:
                raise SandboxVanishedError("bubblewrap ended")
            try:
                part = self._control.recv(min(1 << 20, size - len(parts)))
            except OSError as error:
                raise SandboxVanishedError(f"the harness is lost: {error}") from error
            if not part:
                raise SandboxVanishedError("the harness hung up")
            parts += part
        return bytes(parts)


def _readable(descriptors: list[int], timeout_s: float) -> list[int]:
    """Those that can be read now, or within the time; `select` fails above descriptor 1023."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(max(0.0, timeout_s) * 1000)]
