"""Process 1 of a sandbox: runs one program's calls, each in a process of its own.

It holds no expected result and judges nothing: what a call printed and returned goes back as data.
It learns a call's nonce only after every process of that call is dead, so no untrusted code ever
shares the sandbox with a nonce. `launch.py` starts it, `sandbox.py` talks to it over the socket
that is its standard input: frames of 4 bytes' length; marshal from the host, who is trusted, and
fields of 4 bytes' length each to the host, who trusts nobody.

Standard library only, and little of it: every import is paid for by every sandbox.
"""

import _signal as signal  # pyright: ignore[reportMissingImports]  (signal loads enum)
import fcntl
import gc
import marshal
import os
import resource
import select
import struct
import sys
import time

import confine
import program as program_process

HARNESS = "/harness"  # where `launch.py` mounts this file
TMP = "/tmp"  # noqa: S108  (the sandbox's own tmpfs)
POLL_MS = 20  # how often the group's use is measured
CHUNK_BYTES = 65536
STDERR_TAIL_BYTES = 4000
F_ADD_SEALS, ALL_SEALS = 1033, 0b1111
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Loaded before the first call when the program names them, so that its calls need not.
COMMON_MODULES = (
    *("bisect", "collections", "copy", "dataclasses", "datetime", "decimal", "fractions"),
    *("functools", "heapq", "itertools", "json", "math", "operator", "random", "re"),
    *("statistics", "string", "threading", "typing"),
)


class HostGoneError(Exception):
    """The other end of the control socket closed."""


def receive_exactly(control: int, size: int) -> bytes:
    """Read `size` bytes."""
    parts = bytearray()
    while len(parts) < size:
        part = os.read(control, size - len(parts))
        if not part:
            raise HostGoneError
        parts += part
    return bytes(parts)


def receive(control: int) -> dict:
    """Read one frame."""
    (size,) = struct.unpack(">I", receive_exactly(control, 4))
    return marshal.loads(receive_exactly(control, size))  # noqa: S302  (the host is trusted)


def send(control: int, *fields: bytes) -> None:
    """Write one frame."""
    body = b"".join(struct.pack(">I", len(field)) + field for field in fields)
    rest = memoryview(struct.pack(">I", len(body)) + body)
    while rest:
        rest = rest[os.write(control, rest) :]


def sealed_file(text: str) -> int:
    """A read-only file in memory: a call's standard input."""
    file = os.memfd_create("stdin", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    data = memoryview(text.encode("utf-8", "surrogatepass"))
    while data:
        data = data[os.write(file, data) :]
    fcntl.fcntl(file, F_ADD_SEALS, ALL_SEALS)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def empty_folder(folder: str) -> None:
    """Delete everything in `folder`, however deep, by moving what lies deeper up."""
    serial, prefix = 0, os.urandom(8).hex()
    while names := os.listdir(folder):
        for name in names:
            path = f"{folder}/{name}"
            if not os.path.isdir(path) or os.path.islink(path):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            for inner in os.listdir(path):
                serial += 1
                if os.path.isdir(f"{path}/{inner}"):
                    os.chmod(f"{path}/{inner}", 0o700)
                os.rename(f"{path}/{inner}", f"{folder}/{prefix}-{serial}")
            os.rmdir(path)


class Usage:
    """What all processes of the sandbox but this one use now."""

    def __init__(self) -> None:
        self.own_resident_bytes = self._resident_bytes(1)
        self.cpu_before_s = self._reaped_cpu_s()

    @staticmethod
    def _resident_bytes(pid: int) -> int:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * PAGE_BYTES

    @staticmethod
    def _reaped_cpu_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    def measure(self) -> tuple[float, int]:
        """CPU seconds since the start, dead processes' included, and resident bytes."""
        cpu_s, memory_bytes = self._reaped_cpu_s() - self.cpu_before_s, 0
        for name in os.listdir("/proc"):
            if not name.isdigit() or name == "1":
                continue
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                # beyond what the fork shares with this process
                memory_bytes += max(0, self._resident_bytes(int(name)) - self.own_resident_bytes)
            except (FileNotFoundError, ProcessLookupError):  # it ended in the meantime
                continue
            cpu_s += sum(map(int, fields[11:15])) / CLOCK_TICKS
        return cpu_s, memory_bytes


def num_files() -> int:
    """Files and folders in the writable file system."""
    status = os.statvfs(TMP)
    return status.f_files - status.f_ffree


def kill_everything() -> dict[int, int]:
    """Kill and reap every other process of the sandbox; returns wait statuses by process id.

    Processes that lost their parent become this one's children: no child left means none left.
    """
    statuses: dict[int, int] = {}
    while True:
        try:
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass  # none is left to kill; some may be left to reap
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return statuses
        statuses[pid] = status


class Run:
    """One call's process, its pipes and what came out of them."""

    def __init__(self, control: int, program: str, call: dict, limits: dict, ruleset: int) -> None:
        empty_folder(TMP)
        self.control, self.limits = control, limits
        self.usage, self.files_before = Usage(), num_files()
        pipes = [os.pipe() for _ in range(3)]  # stdout, stderr, the report
        # A pipe that is closed before the program starts: it cannot take the mark away.
        self.confined, confined_writer = os.pipe()
        stdin = sealed_file(call.get("stdin", ""))
        self.started_s = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            descriptors = [stdin, *(write for _, write in pipes), confined_writer]
            program_process.child(program, call, limits, ruleset, descriptors, TMP)
        for descriptor in (stdin, *(write for _, write in pipes), confined_writer):
            os.close(descriptor)
        self.outputs = {read: bytearray() for read, _ in pipes}
        for read in self.outputs:
            os.set_blocking(read, False)

    def read(self, descriptor: int) -> bool:
        """Take what a pipe holds, up to the limit on output; False at its end."""
        room = self.limits["output_bytes"] + 1 - len(self.outputs[descriptor])
        while room > 0:
            try:
                part = os.read(descriptor, min(CHUNK_BYTES, room))
            except BlockingIOError:
                return True
            if not part:
                return False
            self.outputs[descriptor] += part
            room -= len(part)
        return True

    def total_output_bytes(self) -> int:
        """Bytes read from all pipes."""
        return sum(map(len, self.outputs.values()))

    def exceeded(self) -> str | None:
        """The name of the limit that the call has exceeded, if any."""
        cpu_s, memory_bytes = self.usage.measure()
        found = {
            "output": self.total_output_bytes() > self.limits["output_bytes"],
            "memory": memory_bytes > self.limits["group_memory_bytes"],
            "cpu": cpu_s > self.limits["cpu_s"],
            "files": num_files() - self.files_before > self.limits["files"],
            "wall": time.monotonic() - self.started_s > self.limits["wall_s"],
        }
        return next((name for name, is_true in found.items() if is_true), None)

    def watch(self, process: int) -> str | None:
        """Wait until the call's process (a pidfd) ends or exceeds a limit; returns that limit."""
        poll = select.poll()
        for descriptor in (self.control, process, *self.outputs):
            poll.register(descriptor, select.POLLIN)
        next_check_s = 0.0
        while True:
            ready = {descriptor for descriptor, _ in poll.poll(POLL_MS)}
            if self.control in ready:
                raise HostGoneError  # the host says nothing during a call
            for descriptor in ready & self.outputs.keys():
                if not self.read(descriptor):
                    poll.unregister(descriptor)
            if process in ready:
                return None
            if self.total_output_bytes() > self.limits["output_bytes"]:
                return "output"
            if time.monotonic() >= next_check_s:
                if limit := self.exceeded():
                    return limit
                next_check_s = time.monotonic() + POLL_MS / 1000

    def finish(self) -> list[bytes]:
        """Run to the end, leave no process behind, and describe what happened, field by field."""
        process = os.pidfd_open(self.pid)
        limit = self.watch(process)
        os.close(process)
        status = kill_everything()[self.pid]
        for descriptor in self.outputs:
            self.read(descriptor)
            os.close(descriptor)
        cpu_s, _ = self.usage.measure()
        limit = limit or self.limit_afterwards(status, cpu_s)
        confined = os.read(self.confined, 1) != b""
        os.close(self.confined)
        stdout, stderr, report = (bytes(output) for output in self.outputs.values())
        exit_code, wall_s = os.waitstatus_to_exitcode(status), time.monotonic() - self.started_s
        facts = f"{int(confined)} {exit_code} {limit or '-'} {cpu_s} {wall_s}"
        return [facts.encode(), stdout, stderr[-STDERR_TAIL_BYTES:], report]

    def limit_afterwards(self, status: int, cpu_s: float) -> str | None:
        """The limit that shows only in how the process ended."""
        if self.total_output_bytes() > self.limits["output_bytes"]:
            return "output"
        if cpu_s > self.limits["cpu_s"] or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == 24):
            return "cpu"
        return None


def prepare(uid: int, readable: list[str]) -> tuple[int, int, str]:
    """Give up what the harness does not need; (control, ruleset, what protects this sandbox)."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 ignores what it does not handle
    if os.getuid() == 0:
        confine.leave_root(uid)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # when the machine runs out of memory, sandboxes go first
    confine.drop_privileges()
    control = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 100)
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1):  # standard error stays, for what goes wrong here
        os.dup2(null, descriptor)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, control):
            try:
                os.close(int(name))
            except OSError:  # the listing's own descriptor is closed already
                pass
    confine.limit_descriptors()
    program_process.add_site_builtins()
    abi = confine.landlock_abi()
    ruleset = confine.landlock_ruleset(abi, readable, TMP) if abi else -1
    sys.path.remove(HARNESS)
    return control, ruleset, f"seccomp, Landlock version {abi}" if abi else "seccomp, no Landlock"


def load_modules(program: str) -> None:
    """Load the well-known modules that the program names. The program itself loads nothing here."""
    for name in COMMON_MODULES:
        if name in program:
            __import__(name)
    gc.freeze()


def serve(control: int, ruleset: int, protections: str) -> None:
    """Announce readiness, take one program, run its calls until the host hangs up."""
    send(control, b"ready", protections.encode())
    job = receive(control)
    load_modules(job["program"])
    while True:
        call = receive(control)["call"]
        if call["kind"] == "function":
            load_modules("json")
        record = Run(control, job["program"], call, job["limits"], ruleset).finish()
        send(control, b"done")
        send(control, receive(control)["nonce"].encode(), *record)


def main() -> None:
    """Serve until the host hangs up. Arguments: the user id to become, readable folders."""
    try:
        serve(*prepare(int(sys.argv[1]), sys.argv[2:]))
    except HostGoneError:
        os._exit(0)
